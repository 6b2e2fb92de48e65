-- events returns a page of the log. It is no access, and writes nothing.
-- KEYS: the owner's, the conversation's
-- ARGV: 1 id   2 tenant   3 user   4 and 5 seq and n of the event that the page follows, or '' for the beginning of the live turn or else the log's
--       end   6 entries at most   7 bytes of their texts at most
-- Returns {'ok', seq of the live turn's question or 0, seq and n of the event that the page follows, '1' when more follow or else '', id and kind
-- of the last entry up to that event or '', then each entry: its id, how many fields, the fields, how many messages, and the messages that it
-- refers to}, {'missing'} or {'damaged'}.

local id, tenantId, userId, seq, n, most, mostBytes = unpack(ARGV)
most, mostBytes = tonumber(most), tonumber(mostBytes)
local now = clock()
local c, outcome = open(id, tenantId, userId)
if not c then return outcome end
local live = c.turnLeaseUntil > now and c.questionSeq or 0
seq, n = tonumber(seq), tonumber(n)
if not seq then
  if live > 0 then seq, n = live, 0 else seq, n = logged() end
end

local before = redis.call('XREVRANGE', events, text(seq) .. '-' .. text(n), '-', 'COUNT', 1)[1] or {'', {''}}
local reply = {'ok', live, seq, n, '', before[1], before[2][1]}
local size, count = 0, 0
for _, found in ipairs(redis.call('XRANGE', events, text(seq) .. '-' .. text(n + 1), '+', 'COUNT', most + 1)) do
  local name, fields = found[1], found[2]
  size = size + #fields[2]
  if count == most or size > mostBytes and count > 0 then
    reply[5] = '1'
    break
  end
  count = count + 1
  local first, refers = tonumber(string.match(name, '^%d+')), {}
  if fields[1] == 'accepted' then
    refers = redis.call('LRANGE', messages, first - 1, first - 1)
  elseif fields[1] == 'end' then
    refers = redis.call('LRANGE', messages, first - 1, first - 1 + fields[6])
  end
  for _, part in ipairs({{name}, {#fields}, fields, {#refers}, refers}) do
    for _, element in ipairs(part) do reply[#reply + 1] = element end
  end
end
return reply
