-- erase is a step of erasing an owner: it ends the given conversations, and finds the next. When there is none, it ends all else.
-- KEYS: the owner's, then the three of each conversation
-- ARGV: 1 how many to find at most   2… ids of the conversations
-- Returns {'ok', how many conversations this ended, id, id…}. A second execution does no harm.

local most = tonumber(ARGV[1])
local ids, ended = rest(2), 0
if #ids > 0 then
  local own = #KEYS - 3 * #ids -- the last of the owner's
  for i = own + 1, #KEYS do
    local key = KEYS[i]
    local did = redis.call('UNLINK', key)
    if (i - own) % 3 == 1 then ended = ended + did end -- the conversation, not its messages or its log
  end
  forget(ids)
end

local found, seen = {}, {}
local function collect(more)
  for _, id in ipairs(more) do
    if #found < most and not seen[id] then
      seen[id] = true
      found[#found + 1] = id
    end
  end
end
for _, index in ipairs({expiries, active, completed, archived}) do collect(redis.call('ZRANGE', index, 0, most - 1)) end
if #found == 0 then -- an eviction may have left summaries alone
  local cursor = '0'
  repeat
    local entries
    cursor, entries = unpack(redis.call('HSCAN', summaries, cursor, 'COUNT', most))
    for i = 1, #entries, 2 do collect({entries[i]}) end
  until cursor == '0' or #found > 0
end
if #found == 0 then
  for _, key in ipairs({expiries, summaries, active, completed, archived, records, recordExpiries, usage}) do redis.call('UNLINK', key) end
end
return {'ok', text(ended), unpack(found)}
