-- finish ends a live turn: its message gets the state, the replies follow it, and the records of its request know how it ended.
-- KEYS: the owner's, the conversation's
-- ARGV: 1 id   2 tenant   3 user   4 token   5 seq of the turn's message, or 0 when it is not known   6 state   7 agent's id
--       8 agent's reference   9 failure   10 the replies' text as list shows it, or ''   11 how many records   12 how many replies
--       then the records' names, the replies, JSON, and
--       what tell adds to the log
-- An empty agent's id or reference leaves the stored one.
-- Returns {'ok', time in ms, what tell returns}, {'missing'}, {'damaged'}, {'lost'}, or {'cancelled'} when the turn would be complete and the
-- owner has asked for its end (nothing is written). When the turn has ended as this call would end it, that is its own first execution: nothing
-- is written again, whatever has happened to the conversation since.

local id, tenantId, userId, token, seq, state, externalId, agentRef, failure, preview, nameCount, replyCount = unpack(ARGV)
seq = tonumber(seq)
local now = clock()
local c, outcome = open(id, tenantId, userId, 'externalId', 'agentRef', 'cancelToken')
if not c then return outcome end

local names, replies = {}, {}
for i = 13, 12 + nameCount do names[#names + 1] = ARGV[i] end
for i = 13 + nameCount, 12 + nameCount + replyCount do replies[#replies + 1] = ARGV[i] end
local known = #names > 0 and redis.call('HMGET', records, unpack(names)) or {}
for i, stored in ipairs(known) do
  known[i] = stored and cjson.decode(stored)
  if known[i] and known[i].turnToken ~= token then known[i] = false end
end

-- ended returns the time of this call's own first execution, or nil.
local function ended()
  for _, record in ipairs(known) do
    if record and record.endedAt then return text(record.endedAt) end
  end
  if c.turnToken == token and seq == 0 then seq = c.questionSeq end
  local question = seq > 0 and message(seq)
  if not question or seq == c.questionSeq and c.turnLeaseUntil > 0 then return nil end -- nobody has ended it
  if stateOf(question) ~= state then return nil end
  if #replies == 0 then return text(c.updatedAt) end
  local answer = message(seq + 1)
  return answer and idOf(answer) == idOf(replies[1]) and createdAt(answer) or nil
end

if c.turnToken ~= token or c.turnLeaseUntil <= now then
  local at = ended()
  if at then return {'ok', at, ''} end
  return {'lost'}
end
if state == 'complete' and c.cancelToken == token then return {'cancelled'} end

if state ~= 'complete' then mark(c, state, failure) end
push(c, change(c, now), replies, state == 'complete' and state or 'partial')
c.turnLeaseUntil = 0
if preview ~= '' then c.lastRole, c.lastText = 'assistant', preview end
local attributes = {'messageCount', 'version', 'updatedAt', 'turnLeaseUntil'}
for name, value in pairs({externalId = externalId, agentRef = agentRef}) do
  if value ~= '' and value ~= c[name] then
    c.bytes = c.bytes + #value - #(c[name] or '')
    c[name] = value
    attributes[#attributes + 1] = name
  end
end
save(c, attributes)
for i, record in ipairs(known) do
  if record then
    record.replyCount, record.endedAt = #replies, c.updatedAt
    if failure ~= '' then record.failure = failure end
    write(names[i], record)
  end
end
return {'ok', c.updatedAt, tell(c, now, rest(13 + nameCount + replyCount))}
