-- events returns a page of what has happened in a conversation. It is no access, and writes nothing.
-- KEYS: the owner's, the conversation's
-- ARGV: 1 id   2 tenant   3 user   4 and 5 seq and n of the event that the page follows, or '' for the beginning of the live turn or else the end of
--       the last   6 entries at most   7 bytes at most of their texts, and of messages, beyond the first turn
-- Returns {'ok', seq of the last question or 0, its token, how often it was asked before, '1' when its turn lives, '2' when its lease has run
-- out, or else '', seq and n of the event that the page follows, '1' when there is an entry for it or else '', '1' when more entries follow
-- or else '', '1' when more messages do or else '', seq of the first message, how many entries, id, kind, text and reply of each, messages of
-- whole turns…}, {'missing'} or {'damaged'}.

local id, tenantId, userId, seq, n, most, mostBytes = unpack(ARGV)
most, mostBytes = tonumber(most), tonumber(mostBytes)
local now = clock()
local c, outcome = open(id, tenantId, userId, 'againSeq', 'again')
if not c then return outcome end
local again = tonumber(c.againSeq or 0) == c.questionSeq and tonumber(c.again) or 0
local isLive = c.turnLeaseUntil > now
seq, n = tonumber(seq), tonumber(n)
if not seq then seq, n = c.questionSeq, again * ATTEMPT + (isLive and 0 or ATTEMPT - 1) end
local reply = {
  'ok', c.questionSeq, c.turnToken, again, isLive and '1' or c.turnLeaseUntil > 0 and '2' or '', seq, n, '', '', '', 0, 0,
}

-- Entries. Those of a turn that has been told are not looked for, nor are its messages.
local isTold = n % ATTEMPT == ATTEMPT - 1 and n >= again * ATTEMPT
if isTold and seq >= c.questionSeq then return reply end
local size, count = 0, 0
for _, found in ipairs(redis.call('XRANGE', events, text(seq) .. '-' .. text(n), '+', 'COUNT', most + 2)) do
  local name, fields = found[1], found[2]
  if name == text(seq) .. '-' .. text(n) then
    reply[8] = '1'
  else
    size = size + #fields[2]
    if count == most or size > mostBytes and count > 0 then
      reply[9] = '1'
      break
    end
    count = count + 1
    for _, part in ipairs({name, fields[1], fields[2], fields[4] or ''}) do reply[#reply + 1] = part end
  end
end
reply[12] = count

-- Messages, from the question on, of as many whole turns as have the given bytes, but of one at least.
local place = math.max(1, isTold and seq + 1 or seq)
reply[11] = place
local bytes, turns, isFull = 0, 0, false
while place <= c.messageCount and not isFull do
  for _, stored in ipairs(redis.call('LRANGE', messages, place - 1, place + 6)) do
    if roleOf(stored) == 'user' then
      isFull = turns > 0 and bytes > mostBytes
      if isFull then break end
      turns = turns + 1
    end
    bytes = bytes + #stored
    reply[#reply + 1] = stored
    place = place + 1
  end
end
if isFull then reply[10] = '1' end
return reply
