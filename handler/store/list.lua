-- list returns a page of the owner's conversations, last updated first, of equal times the highest id first.
-- ARGV: 1 now, ms   2 the place in KEYS of the index to read   3 conversations at most   4 and 5 cursor: time in ms and id, or ''
-- Returns {'ok', id, summary, id, summary…}, or {'damaged'} when the index names one that has no summary.

local index, most = KEYS[tonumber(ARGV[2])], tonumber(ARGV[3])
purge(tonumber(ARGV[1]))

local ids, from = {}, '+inf'
if ARGV[4] ~= '' then
  for _, id in ipairs(redis.call('ZREVRANGEBYSCORE', index, ARGV[4], ARGV[4])) do
    if id < ARGV[5] and #ids < most then ids[#ids + 1] = id end
  end
  from = '(' .. ARGV[4]
end
for _, id in ipairs(redis.call('ZREVRANGEBYSCORE', index, from, '-inf', 'LIMIT', 0, most - #ids)) do
  ids[#ids + 1] = id
end

local reply = {'ok'}
if #ids > 0 then
  for i, value in ipairs(redis.call('HMGET', KEYS[2], unpack(ids))) do
    if not value then return {'damaged'} end
    reply[#reply + 1] = ids[i]
    reply[#reply + 1] = value
  end
end
return reply
