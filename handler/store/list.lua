-- list returns a page of the owner's conversations, last updated first, of equal times the highest id first.
-- KEYS: the owner's
-- ARGV: 1 conversations at most   2 and 3 cursor: time in ms and id, or ''   4… statuses to list
-- Writes only when conversations have expired.
-- Returns {'ok', '1' when more follow or else '', id, time in ms, summary, id, …}. A summary that is lost is ''; one whose conversation
-- has expired is '-': both are places to go on from.

local most, at, after = unpack(ARGV)
most = tonumber(most)
local now = clock()
local moreExpired
if refused(function() moreExpired = purge(now) end) then moreExpired = true end

-- found has ids, and times as Redis writes them.
local found, times, indexes = {}, {}, 0
local function collect(pairs)
  if #pairs > 0 then indexes = indexes + 1 end
  for i = 1, #pairs, 2 do found[#found + 1], times[pairs[i]] = pairs[i], pairs[i + 1] end
end
for i = 4, #ARGV do
  local index = INDEX[ARGV[i]]
  if at == '' then
    collect(redis.call('ZREVRANGEBYSCORE', index, '+inf', '-inf', 'WITHSCORES', 'LIMIT', 0, most + 1))
  else
    local same = redis.call('ZREVRANGEBYSCORE', index, at, at, 'WITHSCORES')
    local behind = {}
    for j = 1, #same, 2 do
      if same[j] < after then
        behind[#behind + 1] = same[j]
        behind[#behind + 1] = same[j + 1]
      end
    end
    collect(behind)
    collect(redis.call('ZREVRANGEBYSCORE', index, '(' .. at, '-inf', 'WITHSCORES', 'LIMIT', 0, most + 1))
  end
end
if indexes > 1 then -- each by itself is in order
  table.sort(found, function(a, b)
    if times[a] ~= times[b] then return tonumber(times[a]) > tonumber(times[b]) end
    return a > b
  end)
end

local reply = {'ok', #found > most and '1' or ''}
local last = math.min(most, #found)
if last > 0 then
  for i, stored in ipairs(redis.call('HMGET', summaries, unpack(found, 1, last))) do
    local id = found[i]
    if moreExpired and tonumber(redis.call('ZSCORE', expiries, id) or 0) <= now then stored = '-' end
    local place = 3 * i
    reply[place], reply[place + 1], reply[place + 2] = id, times[id], stored or ''
  end
end
return reply
