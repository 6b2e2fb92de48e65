-- begin appends a user message and takes the turn.
-- ARGV: 1 id   2 now, ms   3 owner   4 time to live, ms   5 messages allowed   6 token   7 lease, ms
--       8 earlier messages to return   9 message, JSON
-- Returns {'ok', seq, time in ms, agent's reference, agent's id, earlier messages…}, {'missing'}, {'closed'}, {'full'},
-- {'damaged'}, or {'busy', ms left}. A turn under the same token is this call's own first execution: nothing is written again;
-- {'lost'} when that turn has died since.

local now, token = tonumber(ARGV[2]), ARGV[6]
purge(now)
local c = load(ARGV[1], now, ARGV[3])
if not c then return {'missing'} end
if damaged(c) then return {'damaged'} end
settle(c, now)
if c.turn ~= token then
  if c.status ~= 'active' then return {'closed'} end
  if c.lease > 0 then return {'busy', text(c.lease - now)} end
  if c.count + 2 > tonumber(ARGV[5]) then return {'full'} end
  push(c, 'pending', change(c, now), {ARGV[9]})
  c.turn, c.lease, c.asked, c.ended = token, now + tonumber(ARGV[7]), c.count, 0
  touch(c, now, tonumber(ARGV[4]))
  save(c, now)
elseif c.lease == 0 then
  return {'lost'}
end

local reply = {'ok', text(c.asked), text(c.updated), c.ref, c.external}
local context = tonumber(ARGV[8])
if context > 0 and c.asked > 1 then
  for _, element in ipairs(redis.call('LRANGE', KEYS[8], text(math.max(0, c.asked - 1 - context)), text(c.asked - 2))) do
    reply[#reply + 1] = element
  end
end
return reply
