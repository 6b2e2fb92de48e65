-- describe returns the metadata of conversations that list has found.
-- KEYS: their own
-- Returns {'ok', metadata, metadata…}, '' for none.

local reply = {'ok'}
for i, key in ipairs(KEYS) do reply[i + 1] = redis.call('HGET', key, 'metadata') or '' end
return reply
