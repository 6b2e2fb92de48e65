-- recall looks for the idempotency record of a request.
-- KEYS: the owner's
-- ARGV: 1 fingerprint   2 name of the record
-- Returns {'ok', '1' when there is one or else ''}, or {'reused'}. Writes only when records have expired.

local fingerprint, name = unpack(ARGV)
local known, reused = recall({name}, fingerprint, clock())
if reused then return {'reused'} end
return {'ok', known[1] and '1' or ''}
