-- The part that every script begins with: how a conversation's keys are read, and how they are kept in step.
--
-- KEYS, the owner's:     1 expiries (ZSET)   2 summaries (HASH)   3 index (ZSET)   4, 5, 6 index by status (ZSET)
-- KEYS, a conversation's: 7 conversation (HASH)   8 messages (LIST)
-- KEYS, a request's:      9, 10 guards (HASH), as many as it has
--
-- A summary is a JSON array of strings, the fields of SUMMARY in order. A message is a JSON array [state, time in ms, message].
-- Scripts on one conversation have ARGV 1 id   2 now, ms   3 owner, JSON. Numbers are written by text(), because tostring() loses digits of a time.
--
-- The turn: turn is the token of the last one that began, lease when it dies (0 once it has ended), asked the seq of its message.
--
-- A guard knows a request by its digest. Of a turn: turn is its token, asked the seq of its message, replies how many messages
-- answered it, failure why it failed, ended the time of its finish (none while it lives, and when it died). Of a start: turn is the token of the claim, lease when it dies, made the summary once it is made,
-- id the conversation's.

local SUMMARY = {'owner', 'record', 'external', 'status', 'count', 'version', 'updated', 'accessed', 'expires'}
local TURN = {'ref', 'turn', 'lease', 'asked'}
local INDEX = {active = 4, completed = 5, archived = 6}

local function text(number)
  return string.format('%.0f', number)
end

-- forget takes conversations out of everything that the owner has once.
local function forget(ids)
  redis.call('HDEL', KEYS[2], unpack(ids))
  for _, key in ipairs({KEYS[1], KEYS[3], KEYS[4], KEYS[5], KEYS[6]}) do
    redis.call('ZREM', key, unpack(ids))
  end
end

-- purge forgets the conversations that have expired.
local function purge(now)
  repeat
    local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(now), 'LIMIT', 0, 1000)
    if #ids > 0 then forget(ids) end
  until #ids < 1000
end

-- load returns the conversation, or nil when it does not exist or has expired; then the indexes do not know it either.
-- The owner is compared although the keys are the owner's alone: a second lock costs nothing.
local function load(id, now, owner)
  local names = {}
  for _, name in ipairs(SUMMARY) do names[#names + 1] = name end
  for _, name in ipairs(TURN) do names[#names + 1] = name end
  local values = redis.call('HMGET', KEYS[7], unpack(names))
  if not values[1] then
    if redis.call('ZSCORE', KEYS[1], id) then forget({id}) end
    return nil
  end
  local c = {id = id}
  for i, name in ipairs(names) do c[name] = values[i] end
  for _, name in ipairs({'count', 'version', 'updated', 'accessed', 'expires', 'lease', 'asked'}) do
    c[name] = tonumber(c[name])
  end
  if c.expires <= now or c.owner ~= owner then return nil end
  return c
end

-- damaged says that messages are missing or too many, as after an eviction.
local function damaged(c)
  return redis.call('LLEN', KEYS[8]) ~= c.count
end

local function summary(c)
  local all = {}
  for i, name in ipairs(SUMMARY) do
    local value = c[name]
    if type(value) == 'number' then value = text(value) end
    all[i] = value
  end
  return cjson.encode(all)
end

-- touch counts an access at now, and puts off the expiry of all that belongs to the conversation.
local function touch(c, now, ttl)
  c.accessed = math.max(now, c.accessed)
  c.expires = c.accessed + ttl
end

-- save writes the conversation, its summary and its places in the indexes, and sets every expiry.
local function save(c, now)
  local fields = {}
  for _, names in ipairs({SUMMARY, TURN}) do
    for _, name in ipairs(names) do
      local value = c[name]
      if type(value) == 'number' then value = text(value) end
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  redis.call('HSET', KEYS[7], unpack(fields))
  redis.call('HSET', KEYS[2], c.id, summary(c))
  redis.call('ZADD', KEYS[1], text(c.expires), c.id)
  redis.call('ZADD', KEYS[3], text(c.updated), c.id)
  redis.call('ZADD', KEYS[INDEX[c.status]], text(c.updated), c.id)
  redis.call('PEXPIRE', KEYS[7], text(c.expires - now))
  redis.call('PEXPIRE', KEYS[8], text(c.expires - now))
  local longest = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
  for i = 1, 6 do
    redis.call('PEXPIRE', KEYS[i], text(tonumber(longest) - now))
  end
end

-- change counts a change of the conversation at now, and returns the time to stamp it with.
local function change(c, now)
  c.version = c.version + 1
  c.updated = math.max(now, c.updated)
  return c.updated
end

-- push appends messages to the list.
local function push(c, state, at, messages)
  for _, message in ipairs(messages) do
    redis.call('RPUSH', KEYS[8], '["' .. state .. '",' .. text(at) .. ',' .. message .. ']')
  end
  c.count = c.count + #messages
end

-- mark gives the message a state.
local function mark(seq, state)
  local element = redis.call('LINDEX', KEYS[8], text(seq - 1))
  local rest = string.sub(element, string.find(element, ',', 1, true), -1)
  redis.call('LSET', KEYS[8], text(seq - 1), '["' .. state .. '"' .. rest)
end

-- close ends the turn: its message gets the state.
local function close(c, state)
  mark(c.asked, state)
  c.lease = 0
end

-- settle ends a turn whose lease has run out.
local function settle(c, now)
  if c.lease > 0 and c.lease <= now then
    close(c, 'failed')
    change(c, now)
    save(c, now)
  end
end

-- out_of_memory makes a change, and returns whether Redis had no memory for it. Then nothing of it is written, because Redis looks
-- at its memory only once, before the script.
local function out_of_memory(change)
  local done, problem = pcall(change)
  if done then return false end
  local isFull = string.find(type(problem) == 'table' and problem.err or problem, 'OOM ', 1, true)
  if not isFull then change() end -- fails again, with the error as Redis words it
  return true
end

-- recall returns what a guard knows of a request, or nil, and whether it knows another request by that name.
local function recall(key, request)
  local values = redis.call('HMGET', key, 'request', 'turn', 'asked', 'replies', 'failure', 'lease', 'made', 'id')
  if not values[1] then return nil, false end
  return {
    turn = values[2], asked = tonumber(values[3]), replies = tonumber(values[4]), failure = values[5] or '',
    lease = tonumber(values[6]), made = values[7], id = values[8],
  }, values[1] ~= request
end

-- remember has a guard know a request, for ttl ms.
local function remember(key, ttl, ...)
  redis.call('HSET', key, ...)
  redis.call('PEXPIRE', key, ttl)
end

-- arguments returns ARGV from the given place on.
local function arguments(first)
  local all = {}
  for i = first, #ARGV do all[#all + 1] = ARGV[i] end
  return all
end
