-- update changes what the owner may change. It is no access, and leaves a turn alone.
-- KEYS: the owner's, the conversation's
-- ARGV: 1 id   2 tenant   3 user   4 version to change, or 0 for any   5 bytes allowed   6 records allowed   7 fingerprint
--       8 name of the record, or ''   9 its time to live, ms   10… name and value of each attribute: title, metadata, status
-- Returns what show does, {'missing'}, {'damaged'}, {'quota'}, {'reused'}, or {'version'} when the conversation has
-- another one. What changes nothing is no change, so a second execution does no harm without a version; with one it is told by the values
-- that it would set. A request that the record knows changes nothing either.

local id, tenantId, userId, version, mostBytes, mostRecords, fingerprint, record, ttl = unpack(ARGV)
local now = clock()
local c, outcome = openToShow(id, tenantId, userId)
if not c then return outcome end
if record ~= '' then
  local known, reused = recall({record}, fingerprint, now)
  if reused then return {'reused'} end
  if known[1] then return show(c) end
end

-- note has the record know the request.
local function note()
  if record ~= '' then remember(record, {fingerprint = fingerprint}, now, ttl, tonumber(mostRecords)) end
end

local was, changed, isSet = INDEX[c.status], {}, false
for i = 10, #ARGV, 2 do
  local name, value = ARGV[i], ARGV[i + 1]
  local before = c[name] or ''
  if before ~= value then
    if name ~= 'status' then c.bytes = c.bytes + #value - #before end
    c[name] = value
    changed[#changed + 1] = name
    if name == 'metadata' then c.metadataBytes = #value end
  elseif name == 'title' and not c.title then
    isSet = true -- to be empty, which is no change, but no message gives one now
  end
end
if #changed == 0 then
  if isSet then redis.call('HSET', conversation, 'title', '') end
  note()
  return show(c)
end
if version ~= '0' and tonumber(version) ~= c.version then return {'version'} end
local more = c.bytes - c.bytesCharged
if more > 0 and used(now).bytes + more > tonumber(mostBytes) then return {'quota'} end
if INDEX[c.status] ~= was then redis.call('ZREM', was, id) end
if isSet then
  c.title = ''
  changed[#changed + 1] = 'title'
end
change(c, now)
changed[#changed + 1] = 'version'
changed[#changed + 1] = 'updatedAt'
save(c, changed)
note()
return show(c)
