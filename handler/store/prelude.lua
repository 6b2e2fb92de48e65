-- The part that every script begins with: how a conversation is read, and how its keys are changed together.
--
-- A script touches only the keys that it is given, checks before it writes, writes only what it changes, and recognises its own second
-- execution. keys.go says what each key holds. Scripts without a conversation are given the owner's keys alone.
--
-- The clock is Redis' own, in ms. redis.call writes all digits of a number; within a string text() does, because .. loses those of a time.
--
-- A conversation is a HASH with a field per attribute. A missing attribute has a default, and one that a newer version has added is left
-- as it is. The turn: turnToken is the token of the last one that began, turnLeaseUntil when it dies (0 once it has ended), questionSeq
-- the seq of its message. message:<id> is the seq of the user's message with that id.
--
-- A title is missing until it is given, or the first message with text gives it. One that the owner has set stays, even when it is empty.
--
-- A message is a JSON object: createdAt in ms, then the message as it was given. One that failed, was cancelled, or is partial has its state
-- in front, and a question the code of the failure. A question whose turn lives is pending, and everything else complete, without a word in
-- the list. large:<seq> is the length of a long one.
--
-- The log is a STREAM of the status and deltas of the last two turns that told any. All else that a turn tells is in the conversation. The id of
-- an entry is the seq of the question, and n of the event: ATTEMPT for each time before that the question was asked, and 2 and more. Its field is
-- status or delta, and its value the text; reply is the id of the reply of a delta. again is how often the question againSeq was asked before.
-- cancelToken is the token of the turn whose end the owner has asked for, cancelCall that of the call that did.
--
-- What an owner has is counted in bytes: of a conversation, in its attribute bytes, the elements of its messages and the values of CONTENT;
-- of an idempotency record, the record. The sum is in the owner's usage.

local expiries, summaries, active, completed, archived, records, recordExpiries, usage, conversation, messages, events = unpack(KEYS)
local INDEX = {active = active, completed = completed, archived = archived}

local FORMAT = 1 -- of a conversation; one with a higher number is left to newer versions
local PURGE = 500 -- entries at most in one call
local WINDOW = 60000 -- ms, in which turns are counted
local LARGE = 16384 -- bytes of a message that is never read unseen
local ATTEMPT = 20000 -- events at most of an attempt to answer a question
local LOG_TIME = 1200000 -- ms for which the log outlives the first entry of its last turn
local LOG_WINDOW = 900000 -- ms, in which the owner's entries are counted
local LOG_BYTES = 16777216 -- of them in that time, each with
local ENTRY = 64 -- bytes more than its text

-- CONTENT are the attributes whose length callers and agents choose.
local CONTENT = {'objectId', 'externalId', 'agentRef', 'title', 'metadata'}

-- SUMMARY is what list shows, by the type that it has in the summary, a JSON object.
local SUMMARY = {
  title = 'string', status = 'string', externalId = 'string', messageCount = 'number', version = 'number',
  createdAt = 'number', updatedAt = 'number', accessedAt = 'number', expiresAt = 'number', metadataBytes = 'number', bytes = 'number',
  lastRole = 'string', lastText = 'string',
}

local function text(number)
  return string.format('%.0f', number)
end

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- charge counts bytes that the owner has more, or less.
local function charge(bytes)
  if bytes ~= 0 then redis.call('HINCRBY', usage, 'bytes', bytes) end
end

-- forget takes conversations out of everything that the owner has once.
local function forget(ids)
  local bytes = 0
  for _, stored in ipairs(redis.call('HMGET', summaries, unpack(ids))) do
    bytes = bytes + (stored and tonumber(string.match(stored, '"bytes":(%d+)')) or 0)
  end
  charge(-bytes)
  redis.call('HDEL', summaries, unpack(ids))
  for _, key in ipairs({expiries, active, completed, archived}) do
    redis.call('ZREM', key, unpack(ids))
  end
end

-- purge forgets conversations that have expired, and returns whether there may be more of them.
local function purge(now)
  local ids = redis.call('ZRANGEBYSCORE', expiries, '-inf', now, 'LIMIT', 0, PURGE)
  if #ids > 0 then forget(ids) end
  return #ids == PURGE
end

-- open reads what every script on a conversation needs of it, and the attributes that are named beside. It returns nil and the outcome
-- when the conversation cannot be used. The owner is compared although the keys are the owner's alone: a second lock costs nothing.
local function open(id, tenantId, userId, ...)
  local names = {
    'format', 'tenantId', 'userId', 'status', 'messageCount', 'version', 'updatedAt', 'accessedAt', 'expiresAt',
    'turnToken', 'turnLeaseUntil', 'questionSeq', 'bytes', 'largeMessages', 'createdAt', ...
  }
  local values = redis.call('HMGET', conversation, unpack(names))
  local format, tenant, user, status, messageCount, version, updatedAt, accessedAt, expiresAt,
    turnToken, turnLeaseUntil, questionSeq, bytes, largeMessages, createdAt = unpack(values)
  local exists = format
  if not exists then
    for i = 2, #names do exists = exists or values[i] end
  end
  if not exists then
    if redis.call('ZSCORE', expiries, id) or redis.call('HEXISTS', summaries, id) == 1 then forget({id}) end
    return nil, {'missing'}
  end
  if (tenant or tenantId) ~= tenantId or (user or userId) ~= userId then return nil, {'missing'} end
  if (tonumber(format) or FORMAT) > FORMAT then return nil, {'newer'} end

  updatedAt = tonumber(updatedAt) or tonumber(accessedAt) or 0
  accessedAt = tonumber(accessedAt) or updatedAt
  bytes = tonumber(bytes) or 0
  local length = redis.call('LLEN', messages)
  local c = {
    id = id, status = INDEX[status] and status or 'active', messageCount = tonumber(messageCount) or length,
    version = tonumber(version) or 1, updatedAt = updatedAt, accessedAt = accessedAt, expiresAt = tonumber(expiresAt) or accessedAt,
    turnToken = turnToken or '', turnLeaseUntil = tonumber(turnLeaseUntil) or 0, questionSeq = tonumber(questionSeq) or 0,
    bytes = bytes, bytesCharged = bytes, largeMessages = tonumber(largeMessages) or 0, createdAt = tonumber(createdAt) or updatedAt,
  }
  for i = 16, #names do c[names[i]] = values[i] or nil end
  if length ~= c.messageCount or c.questionSeq > length then return nil, {'damaged'} end -- as after an eviction
  return c
end

local function openToShow(id, tenantId, userId)
  return open(id, tenantId, userId, 'objectId', 'externalId', 'title', 'metadata')
end

-- show returns {'ok', what callers see of a conversation}.
local function show(c)
  return {
    'ok', c.objectId or '', c.externalId or '', c.title or '', c.metadata or '', c.status, c.messageCount, c.version,
    c.createdAt, c.updatedAt, c.accessedAt, c.expiresAt, c.turnLeaseUntil, c.questionSeq,
  }
end

-- limitOf returns when a conversation ends however often it is accessed. An age of 0 is no limit.
local function limitOf(c, age)
  age = tonumber(age)
  return age > 0 and c.createdAt + age or math.huge
end

-- access counts an access, unless one was counted within the lag, and keeps the end within the age that a conversation may have. It returns
-- whether it changed something; then expire has to follow.
local function access(c, now, ttl, lag, age)
  local isCounted, limit = now - c.accessedAt >= tonumber(lag), limitOf(c, age)
  if not isCounted and c.expiresAt <= limit then return false end
  if isCounted then c.accessedAt, c.expiresAt = now, now + ttl end
  c.expiresAt = math.min(c.expiresAt, limit)
  return true
end

-- used returns what the owner has used: bytes, turns in the current window and when that began, and when the owner's keys expire.
local function used(now)
  local values = redis.call('HMGET', usage, 'bytes', 'windowStart', 'turns', 'expiresAt', 'logStart', 'logged')
  local u = {
    bytes = tonumber(values[1]) or 0, windowStart = tonumber(values[2]) or 0, turns = tonumber(values[3]) or 0,
    expiresAt = tonumber(values[4]), logStart = tonumber(values[5]) or 0, logged = tonumber(values[6]) or 0,
  }
  if not u.expiresAt then -- lost, or the owner is new
    u.expiresAt, u.isLost = now + math.max(0, redis.call('PTTL', expiries)), true
  end
  if now - u.windowStart >= WINDOW or now < u.windowStart then u.windowStart, u.turns = now, 0 end
  if now - u.logStart >= LOG_WINDOW or now < u.logStart then u.logStart, u.logged = now, 0 end
  return u
end

-- countTurn counts a turn in the current window.
local function countTurn(u)
  redis.call('HSET', usage, 'windowStart', u.windowStart, 'turns', u.turns + 1)
end

-- keep extends the expiry of the owner's keys to the given time, and by the lag beyond it, so that it is seldom written.
local function keep(u, at, lag)
  if at <= u.expiresAt and not u.isLost then return end
  u.expiresAt, u.isLost = math.max(at + lag, u.expiresAt), false
  redis.call('HSET', usage, 'expiresAt', u.expiresAt)
  for _, key in ipairs({expiries, summaries, active, completed, archived, records, recordExpiries, usage}) do
    redis.call('PEXPIREAT', key, u.expiresAt)
  end
end

-- expire sets the expiry of all that belongs to the conversation. It is later by the lag, within which accesses are not counted, but never
-- beyond the age that it may have.
local function expire(c, u, lag, age)
  local at = math.min(c.expiresAt + lag, limitOf(c, age))
  redis.call('ZADD', expiries, at, c.id)
  redis.call('PEXPIREAT', conversation, at)
  if c.messageCount > 0 then redis.call('PEXPIREAT', messages, at) end
  keep(u, at, lag)
end

-- summary reads the summary of a conversation: a table, or nil when it is lost or damaged.
local function summary(id)
  local stored = redis.call('HGET', summaries, id)
  if not stored or string.sub(stored, 1, 1) ~= '{' then return nil end
  local good, s = pcall(cjson.decode, stored)
  if not good then return nil end
  for name, kind in pairs(SUMMARY) do
    if s[name] ~= nil and type(s[name]) ~= kind then return nil end
  end
  return s
end

-- summarize writes what list shows, and returns how many entries that adds. What a newer version has added to the summary stays.
local function summarize(c)
  local s = summary(c.id)
  if not s then
    local more = redis.call('HMGET', conversation, 'title', 'externalId', 'createdAt', 'metadata')
    s = {
      title = more[1] or nil, externalId = more[2] or nil, createdAt = tonumber(more[3] or nil),
      metadataBytes = more[4] and #more[4] or nil,
    }
  end
  for name in pairs(SUMMARY) do
    if c[name] ~= nil then s[name] = c[name] end
  end
  return redis.call('HSET', summaries, c.id, cjson.encode(s))
end

-- save writes the named attributes, the summary and the entry in the index.
local function save(c, names)
  local fields = {}
  for _, name in ipairs(names) do
    fields[#fields + 1] = name
    fields[#fields + 1] = c[name]
  end
  if c.bytes ~= c.bytesCharged then
    fields[#fields + 1] = 'bytes'
    fields[#fields + 1] = c.bytes
    charge(c.bytes - c.bytesCharged)
    c.bytesCharged = c.bytes
  end
  redis.call('HSET', conversation, unpack(fields))
  local added = summarize(c) + redis.call('ZADD', INDEX[c.status], c.updatedAt, c.id)
  if added > 0 then -- the keys may be new
    local at = redis.call('HGET', usage, 'expiresAt') or c.expiresAt
    redis.call('PEXPIREAT', summaries, at)
    redis.call('PEXPIREAT', INDEX[c.status], at)
  end
end

-- header is what a stored message with a state begins with. A failure whose code is not plain is left out.
local function header(state, failure)
  if state == 'complete' then return '{' end
  if string.match(failure or '', '^[%l_]+$') then return '{"state":"' .. state .. '","failure":"' .. failure .. '",' end
  return '{"state":"' .. state .. '",'
end

-- destroy ends a conversation at once. Its first write may be done when Redis is out of memory, and so may what follows it.
-- c is nil when the conversation is damaged.
local function destroy(id, c)
  redis.call('UNLINK', conversation, messages, events)
  if c and not summary(id) then summarize(c) end -- it says what to take off the owner's bytes
  forget({id})
end

-- outlived ends a conversation that is older than it may be, and returns whether it did. Its expiry is from before there was the limit.
local function outlived(c, now, age)
  if now < limitOf(c, age) then return false end
  destroy(c.id, c)
  return true
end

-- change counts a change, and returns the time to stamp it with.
local function change(c, now)
  c.version = c.version + 1
  c.updatedAt = math.max(now, c.updatedAt)
  return c.updatedAt
end

-- push appends messages with a state, and returns the last as it is stored.
local function push(c, at, given, state)
  local stored
  for _, message in ipairs(given) do
    stored = header(state) .. '"createdAt":' .. text(at) .. ',' .. string.sub(message, 2)
    redis.call('RPUSH', messages, stored)
    c.messageCount = c.messageCount + 1
    c.bytes = c.bytes + #stored
    if #stored > LARGE then
      c.largeMessages = c.largeMessages + 1
      redis.call('HSET', conversation, 'large:' .. text(c.messageCount), #stored, 'largeMessages', c.largeMessages)
    end
  end
  return stored
end

local function message(seq)
  return redis.call('LINDEX', messages, seq - 1)
end

-- page reads the messages from first to last, as many of the newest as have the given bytes, but at least as many as least.
-- It reads at most 16 LARGE more than it returns. It returns the seq of the first, and the messages.
local function page(c, first, last, bytes, least)
  if first > last then return first, {} end
  if c.bytes <= bytes then return first, redis.call('LRANGE', messages, first - 1, last - 1) end
  local newest, size, full, behind = {}, 0, false, last + 1 -- newest first
  while last >= first and not full do
    local from = math.max(first, last - 15)
    if c.largeMessages > 0 then -- each by itself
      local names = {}
      for seq = last, from, -1 do names[#names + 1] = 'large:' .. text(seq) end
      local lengths = redis.call('HMGET', conversation, unpack(names))
      if lengths[1] then
        if size + lengths[1] > bytes and #newest >= least then break end
        from = last
      else
        for i = #lengths, 2, -1 do
          if lengths[i] then from = math.max(from, last - i + 2) end
        end
      end
    end
    local read = redis.call('LRANGE', messages, from - 1, last - 1)
    for i = #read, 1, -1 do
      full = size + #read[i] > bytes and #newest >= least
      if full then break end
      size = size + #read[i]
      newest[#newest + 1] = read[i]
    end
    last = from - 1
  end
  local all = {}
  for i = #newest, 1, -1 do all[#all + 1] = newest[i] end
  return behind - #newest, all
end

-- Of a stored message: its header comes before the words of the user or the agent.
local function stateOf(stored) return string.match(stored, '^{"state":"(%a+)",') or 'complete' end
local function roleOf(stored) return string.match(stored, '"id":"[^"]*","role":"(%a+)"') end
local function idOf(stored) return string.match(stored, '"id":"([^"]*)"') end
local function createdAt(stored) return string.match(stored, '"createdAt":(%d+)') end

-- mark gives the question a state.
local function mark(c, state, failure)
  local stored = c.questionSeq > 0 and message(c.questionSeq)
  if not stored or stateOf(stored) == state then return end
  local body = string.sub(stored, string.find(stored, '"createdAt":', 1, true) or 2)
  local marked = header(state, failure) .. body
  redis.call('LSET', messages, c.questionSeq - 1, marked)
  c.bytes = c.bytes + #marked - #stored
end

-- settle ends a turn whose lease has run out, and returns whether it did.
local function settle(c, now)
  if c.turnLeaseUntil == 0 or c.turnLeaseUntil > now then return false end
  mark(c, 'failed')
  c.turnLeaseUntil = 0
  change(c, now)
  save(c, {'version', 'updatedAt', 'turnLeaseUntil'})
  return true
end

-- drop takes idempotency records out.
local function drop(names)
  local bytes = 0
  for _, stored in ipairs(redis.call('HMGET', records, unpack(names))) do bytes = bytes + (stored and #stored or 0) end
  charge(-bytes)
  redis.call('HDEL', records, unpack(names))
  redis.call('ZREM', recordExpiries, unpack(names))
end

-- recall returns what the idempotency records know of a request: for each name a table or false, and whether one of them has another
-- fingerprint. Records that have expired are dropped first.
local function recall(names, fingerprint, now)
  local gone = redis.call('ZRANGEBYSCORE', recordExpiries, '-inf', now, 'LIMIT', 0, PURGE)
  if #gone > 0 then drop(gone) end
  local known, reused = redis.call('HMGET', records, unpack(names)), false
  for i, stored in ipairs(known) do
    if stored and #gone == PURGE and tonumber(redis.call('ZSCORE', recordExpiries, names[i]) or 0) <= now then stored = false end
    known[i] = stored and cjson.decode(stored)
    if known[i] and known[i].fingerprint ~= fingerprint then reused = true end
  end
  return known, reused
end

-- write writes an idempotency record.
local function write(name, record)
  local stored = cjson.encode(record)
  charge(#stored - redis.call('HSTRLEN', records, name))
  redis.call('HSET', records, name, stored)
end

-- remember writes an idempotency record that expires after ttl, ms. Beyond the most that an owner may have, the oldest go.
local function remember(name, record, now, ttl, most)
  write(name, record)
  redis.call('ZADD', recordExpiries, now + ttl, name)
  local surplus = redis.call('ZCARD', recordExpiries) - most
  if surplus > 0 then drop(redis.call('ZRANGE', recordExpiries, 0, math.min(surplus, PURGE) - 1)) end
  local u = used(now)
  keep(u, now + ttl, 0)
  redis.call('PEXPIREAT', records, u.expiresAt)
  redis.call('PEXPIREAT', recordExpiries, u.expiresAt)
end

-- logged returns seq and n of the last entry of the log, 0 when there is none.
local function logged()
  local last = redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)[1]
  if not last then return 0, 0 end
  local seq, n = string.match(last[1], '^(%d+)-(%d+)$')
  return tonumber(seq), tonumber(n)
end

-- tell adds what the turn has told to the log: n, kind, text and reply's id of each, or ''. What is there already is left out. It returns '1'
-- when the owner has too many entries, and nothing was added.
local function tell(c, now, given)
  if #given == 0 then return '' end
  local seq, last = logged()
  local isFirst, kept = seq ~= c.questionSeq, 0
  if isFirst and seq > c.questionSeq then -- it is of a time that was lost
    redis.call('UNLINK', events)
  elseif isFirst and seq > 0 then
    kept = last % ATTEMPT - 1 -- at least as many as the turn before has
  end
  if isFirst then last = 0 end
  local size, count = 0, 0
  for i = 1, #given, 4 do
    if tonumber(given[i]) > last then size, count = size + #given[i + 2] + ENTRY, count + 1 end
  end
  if count == 0 then return '' end
  local u = used(now)
  if u.logged + size > LOG_BYTES then return '1' end
  redis.call('HSET', usage, 'logStart', u.logStart, 'logged', u.logged + size)
  if u.isLost then keep(u, u.expiresAt, 0) end
  local trim = isFirst and {'MAXLEN', kept + 1} or {}
  for i = 1, #given, 4 do
    local n, kind, words, reply = tonumber(given[i]), unpack(given, i + 1, i + 3)
    if n > last then
      local entry = {unpack(trim)}
      for _, part in ipairs({text(c.questionSeq) .. '-' .. text(n), kind, words}) do entry[#entry + 1] = part end
      if reply ~= '' then
        entry[#entry + 1] = 'reply'
        entry[#entry + 1] = reply
      end
      redis.call('XADD', events, unpack(entry))
      trim = {}
    end
  end
  if isFirst then redis.call('PEXPIREAT', events, now + LOG_TIME) end
  return ''
end

-- refused makes a change that a reader can do without, and returns whether Redis takes no writes now: it is out of memory, a replica,
-- lacks replicas, or cannot save. It refuses the first write, so nothing of the change is written.
local function refused(update)
  local done, problem = pcall(update)
  if done then return false end
  problem = type(problem) == 'table' and problem.err or problem
  for _, reason in ipairs({'OOM ', 'READONLY ', 'NOREPLICAS ', 'MISCONF '}) do
    if string.find(problem, reason, 1, true) then return true end
  end
  update() -- fails again, with the error as Redis words it
  return false
end

-- rest returns ARGV from the given index on.
local function rest(first)
  local all = {}
  for i = first, #ARGV do all[#all + 1] = ARGV[i] end
  return all
end
