-- begin appends a user message and takes the turn.
-- KEYS: the owner's, the conversation's
-- ARGV: 1 id   2 tenant   3 user   4 time to live, ms   5 lag, ms   6 age at most, ms, or 0   7 messages allowed   8 bytes allowed
--       9 turns a minute allowed   10 token   11 lease, ms   12 earlier messages to return   13 their bytes at most   14 message's id
--       15 message, JSON   16 title that it gives, or ''   17 its text as list shows it, or ''   18 fingerprint   19 records allowed
--       20… name and time to live, ms, of each record
-- Returns {'ok', 'begun', seq, agent's reference, agent's id, '', how often the message was asked before, seq of the question before, the
-- message, earlier messages…}, {'ok', 'replayed', seq, agent's reference, agent's id, failure, '', '', the message, its replies…} for a request
-- whose turn has ended, {'missing'}, {'closed'}, {'full'}, {'taken'}, {'damaged'}, {'reused'}, {'quota'}, {'busy', ms left, seq if the turn is that of the
-- same request}, or {'rate', ms until the next minute}.
-- The token of the conversation or of a record shows this call's own first execution, as long as no other turn has followed; after
-- that the message's id is taken. {'lost'} when the turn of the first execution has ended.

local id, tenantId, userId, ttl, lag, age, most, mostBytes, mostTurns, token, lease, context, contextBytes, messageId, given, title, preview,
  fingerprint, mostRecords = unpack(ARGV)
-- failures after which the agent has nothing of the question
local NOT_TAKEN = {not_asked = true, agent_busy = true, insufficient_claims = true}

local now = clock()
local c, outcome = open(id, tenantId, userId, 'agentRef', 'externalId', 'againSeq', 'again', 'title')
if not c then return outcome end
if outlived(c, now, age) then return {'missing'} end

local names, ttls, known, past = {}, {}, {}, nil
for i = 20, #ARGV, 2 do names[#names + 1], ttls[#ttls + 1] = ARGV[i], ARGV[i + 1] end
if #names > 0 then
  local reused
  known, reused = recall(names, fingerprint, now)
  if reused then return {'reused'} end
  past = known[1] or known[2]
end
settle(c, now)
local live = c.turnLeaseUntil > 0
local u = used(now)

-- reply returns the turn's message with what precedes or follows it.
local function reply(kind, seq, failure, again, before, stored, around)
  local all = {'ok', kind, seq, c.agentRef or '', c.externalId or '', failure, again, before, stored}
  for _, element in ipairs(around) do all[#all + 1] = element end
  return all
end

-- begun returns the turn with the messages before it.
local function begun(stored, previous)
  local before = {}
  if tonumber(context) > 0 then
    local _
    _, before = page(c, math.max(1, c.questionSeq - context), c.questionSeq - 1, tonumber(contextBytes), 0)
  end
  local again = tonumber(c.againSeq or 0) == c.questionSeq and c.again or 0
  return reply('begun', c.questionSeq, '', again, previous, stored, before)
end

-- take takes the turn for the message with the seq, and returns the seq of the question before. It writes the named attributes too.
local function take(seq, ...)
  change(c, now)
  local previous = c.questionSeq
  c.turnToken, c.turnLeaseUntil, c.questionSeq = token, now + lease, seq
  local attributes = {'version', 'updatedAt', 'turnToken', 'turnLeaseUntil', 'questionSeq', ...}
  local counted = access(c, now, ttl, lag, age)
  if counted then
    attributes[#attributes + 1] = 'accessedAt'
    attributes[#attributes + 1] = 'expiresAt'
  end
  save(c, attributes)
  if counted or seq == 1 then expire(c, u, lag, age) end -- the first message makes its list
  for i, name in ipairs(names) do
    local record = {fingerprint = fingerprint, conversationId = id, turnToken = token, questionSeq = seq}
    remember(name, record, now, ttls[i], tonumber(mostRecords))
  end
  redis.pcall('PUBLISH', events, '') -- who is not told looks by and by
  return previous
end

if c.turnToken == token or past and past.turnToken == token then
  if c.turnToken ~= token or not live then return {'lost'} end
  return begun(message(c.questionSeq), c.questionSeq) -- which was before is forgotten
end
if past and live and past.turnToken == c.turnToken then return {'busy', text(c.turnLeaseUntil - now), past.questionSeq} end
if past and NOT_TAKEN[past.failure] and past.questionSeq == c.messageCount and c.status == 'active' then
  if u.turns >= tonumber(mostTurns) then return {'rate', text(u.windowStart + WINDOW - now)} end
  countTurn(u)
  mark(c, 'complete')
  c.again = (tonumber(c.againSeq or 0) == past.questionSeq and c.again or 0) + 1
  c.againSeq = past.questionSeq
  local previous = take(past.questionSeq, 'again', 'againSeq')
  return begun(message(past.questionSeq), previous)
end
if past then
  for i, name in ipairs(names) do
    if not known[i] then remember(name, past, now, ttls[i], tonumber(mostRecords)) end
  end
  local last = past.questionSeq + (past.replyCount or 0)
  return reply('replayed', past.questionSeq, past.failure or '', '', '', message(past.questionSeq),
    redis.call('LRANGE', messages, past.questionSeq, last - 1))
end

-- An id made for a reply ends in its seq, so one look there tells; those of questions are fields.
local seq = tonumber(string.sub(messageId, -6), 16)
local there = seq and seq > 0 and seq <= c.messageCount and message(seq)
if there and idOf(there) == messageId or redis.call('HEXISTS', conversation, 'message:' .. messageId) == 1 then return {'taken'} end
if c.status ~= 'active' then return {'closed'} end
if live then return {'busy', text(c.turnLeaseUntil - now)} end
if c.messageCount + 2 > tonumber(most) then return {'full'} end
if u.turns >= tonumber(mostTurns) then return {'rate', text(u.windowStart + WINDOW - now)} end
if c.title then title = '' end
local more = #given + #title
if u.bytes + more > tonumber(mostBytes) then
  purge(now)
  if used(now).bytes + more > tonumber(mostBytes) then return {'quota'} end
end
countTurn(u)

local stored = push(c, math.max(now, c.updatedAt), {given}, 'complete')
c['message:' .. messageId] = c.messageCount
if preview ~= '' then c.lastRole, c.lastText = 'user', preview end
local attributes = {'messageCount', 'message:' .. messageId}
if title ~= '' then
  c.title, c.bytes, attributes[3] = title, c.bytes + #title, 'title'
end
return begun(stored, take(c.messageCount, unpack(attributes)))
