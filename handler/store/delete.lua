-- delete ends a conversation at once. A record in its place, the tombstone, keeps a late second execution of its start from making it anew.
-- KEYS: the owner's, the conversation's
-- ARGV: 1 id   2 tenant   3 user   4 token   5 name of the tombstone   6 its time to live, ms   7 records allowed   8 fingerprint
--       9 name of the record, or ''   10 its time to live, ms
-- Returns {'ok', '1' when an earlier request with the record did it or else ''}, {'missing'}, or {'reused'}. The token tells this call's
-- own first execution.

local DELETED = 'deleted' -- the fingerprint of a tombstone
local id, tenantId, userId, token, tombstone, tombstoneTTL, most, fingerprint, name, ttl = unpack(ARGV)
local now = clock()
if name ~= '' then
  local known, reused = recall({name}, fingerprint, now)
  if reused then return {'reused'} end
  if known[1] then return {'ok', known[1].turnToken == token and '' or '1'} end
end
local c, outcome = open(id, tenantId, userId)
if not c and outcome[1] ~= 'damaged' then
  local past = recall({tombstone}, DELETED, now)[1]
  if outcome[1] == 'missing' and past and past.turnToken == token then return {'ok', ''} end
  return outcome
end

destroy(id, c)
remember(tombstone, {fingerprint = DELETED, turnToken = token}, now, tombstoneTTL, tonumber(most))
if name ~= '' then remember(name, {fingerprint = fingerprint, turnToken = token}, now, ttl, tonumber(most)) end
return {'ok', ''}
