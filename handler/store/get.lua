-- get returns a conversation and a page of its messages, and counts as an access.
-- ARGV: 1 id   2 now, ms   3 owner   4 time to live, ms   5 seq to stay below, or 0   6 messages at most
-- When Redis is out of memory, the access is not counted and a dead turn not ended: reads go on.
-- Returns {'ok', summary, seq of the first message, messages…}, {'missing'} or {'damaged'}. A second execution does no harm.

local now, before = tonumber(ARGV[2]), tonumber(ARGV[5])
purge(now)
local c = load(ARGV[1], now, ARGV[3])
if not c then return {'missing'} end
if damaged(c) then return {'damaged'} end
local full = out_of_memory(function()
  settle(c, now)
  touch(c, now, tonumber(ARGV[4]))
  save(c, now)
end)
if full then c = load(ARGV[1], now, ARGV[3]) end

local last = c.count
if before > 0 then last = math.min(last, before - 1) end
local first = math.max(1, last - tonumber(ARGV[6]) + 1)
local reply = {'ok', summary(c), text(first)}
if first <= last then
  for _, element in ipairs(redis.call('LRANGE', KEYS[8], text(first - 1), text(last - 1))) do
    reply[#reply + 1] = element
  end
end
return reply
