-- count counts the keys that exist.
-- KEYS: any
-- Returns {'ok', how many}.

local count = 0
for _, key in ipairs(KEYS) do count = count + redis.call('EXISTS', key) end
return {'ok', tostring(count)}
