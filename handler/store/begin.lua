-- begin appends a user message and takes the turn.
-- ARGV: 1 id   2 now, ms   3 owner   4 time to live, ms   5 messages allowed   6 token   7 lease, ms
--       8 earlier messages to return   9 message, JSON   10 request   11, 12 times to live of the guards, ms
-- Returns {'ok', 'begun', seq, agent's reference, agent's id, earlier messages…, the message},
-- {'ok', 'over', seq, agent's reference, agent's id, failure, the message, its replies…} for a request whose turn is over,
-- {'missing'}, {'closed'}, {'full'}, {'damaged'}, {'reused'}, or {'busy', ms left}.
-- A request that a guard knows under the same token is this call's own first execution: nothing is written again; {'lost'} when that
-- turn has died since.

local now, token = tonumber(ARGV[2]), ARGV[6]
purge(now)
local c = load(ARGV[1], now, ARGV[3])
if not c then return {'missing'} end
if damaged(c) then return {'damaged'} end
local past
for i = 9, #KEYS do
  local known, isOther = recall(KEYS[i], ARGV[10])
  if isOther then return {'reused'} end
  past = past or known
end
settle(c, now)

local function take(asked)
  change(c, now)
  c.turn, c.lease, c.asked = token, now + tonumber(ARGV[7]), asked
  touch(c, now, tonumber(ARGV[4]))
  save(c, now)
  for i = 9, #KEYS do
    redis.call('HDEL', KEYS[i], 'ended')
    remember(KEYS[i], ARGV[i + 2], 'request', ARGV[10], 'turn', token, 'asked', text(asked), 'replies', '0', 'failure', '')
  end
end

if past and past.turn == token then
  if c.turn ~= token or c.lease == 0 then return {'lost'} end
elseif past and past.turn == c.turn and c.lease > 0 then
  return {'busy', text(c.lease - now)}
elseif past and past.failure == 'not asked' and past.asked == c.count and c.status == 'active' then
  mark(past.asked, 'pending')
  take(past.asked)
elseif past then
  local reply = {'ok', 'over', text(past.asked), c.ref, c.external, past.failure}
  for _, element in ipairs(redis.call('LRANGE', KEYS[8], text(past.asked - 1), text(past.asked - 1 + past.replies))) do
    reply[#reply + 1] = element
  end
  return reply
elseif c.status ~= 'active' then
  return {'closed'}
elseif c.lease > 0 then
  return {'busy', text(c.lease - now)}
elseif c.count + 2 > tonumber(ARGV[5]) then
  return {'full'}
else
  push(c, 'pending', math.max(now, c.updated), {ARGV[9]})
  take(c.count)
end

local reply = {'ok', 'begun', text(c.asked), c.ref, c.external}
local first = math.max(0, c.asked - 1 - tonumber(ARGV[8]))
for _, element in ipairs(redis.call('LRANGE', KEYS[8], text(first), text(c.asked - 1))) do
  reply[#reply + 1] = element
end
return reply
