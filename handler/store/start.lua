-- start makes a conversation with its first messages.
-- KEYS: the owner's, the conversation's
-- ARGV: 1 id   2 tenant   3 user   4 time to live, ms   5 lag, ms   6 age at most, ms, or 0   7 conversations allowed
--       8 bytes allowed   9 turns a minute allowed   10 object id   11 agent's id   12 agent's reference   13 title
--       14 metadata, JSON, or ''   15 token of the claim   16 fingerprint   17 name of the record, or ''   18 its time to live, ms
--       19 records allowed   20 name of the tombstone that deleting it leaves   21 the messages' text as list shows it, or ''
--       22… messages, JSON
-- Returns {'ok', createdAt, expiresAt}, {'too many'}, {'quota'}, {'rate', ms until the next minute}, {'lost'} when the token does not
-- hold the claim, or {'missing'} when this call's own first execution made it, and it was deleted since.
-- An id that exists is this call's own first execution: nothing is written again.

local id, tenantId, userId, ttl, lag, age, most, mostBytes, mostTurns, objectId, externalId, agentRef, title, metadata, token, fingerprint,
  name, recordTTL, mostRecords, tombstone, preview = unpack(ARGV)
local now = clock()
local first = redis.call('HMGET', conversation, 'createdAt', 'expiresAt')
if first[1] then return {'ok', first[1], first[2]} end
if redis.call('HEXISTS', records, tombstone) == 1 then return {'missing'} end
purge(now)
if name ~= '' then
  local known, reused = recall({name}, fingerprint, now)
  local past = known[1]
  if reused or not past or past.turnToken ~= token or past.conversationId then return {'lost'} end
end
local count = redis.call('ZCARD', expiries)
if count >= tonumber(most) then return {'too many'} end
local given, size = rest(22), 0
for _, element in ipairs(given) do size = size + #element end
local u = used(now)
if u.turns >= tonumber(mostTurns) then return {'rate', text(u.windowStart + WINDOW - now)} end
local c = {
  id = id, format = FORMAT, tenantId = tenantId, userId = userId, status = 'active', messageCount = 0, version = 1,
  createdAt = now, updatedAt = now, accessedAt = now, bytes = 0, largeMessages = 0,
}
c.expiresAt = math.min(now + ttl, limitOf(c, age))
for attribute, value in pairs({objectId = objectId, externalId = externalId, agentRef = agentRef, title = title, metadata = metadata}) do
  if value ~= '' then c[attribute] = value end
end
for _, attribute in ipairs(CONTENT) do c.bytes = c.bytes + #(c[attribute] or '') end
if u.bytes + c.bytes + size > tonumber(mostBytes) then return {'quota'} end

push(c, now, given, 'complete')
local fields, shown = {}, {metadataBytes = c.metadata and #c.metadata}
for attribute, value in pairs(c) do
  if attribute ~= 'id' and attribute ~= 'largeMessages' then
    fields[#fields + 1] = attribute
    fields[#fields + 1] = value
  end
  if SUMMARY[attribute] then shown[attribute] = value end
end
if preview ~= '' then shown.lastRole, shown.lastText = 'assistant', preview end
redis.call('HSET', conversation, unpack(fields))
redis.call('HSET', summaries, id, cjson.encode(shown))
redis.call('ZADD', active, now, id)
charge(c.bytes)
countTurn(u)
if count == 0 then u.expiresAt = 0 end -- the owner's keys are new
expire(c, u, lag, age)
redis.call('PEXPIREAT', active, u.expiresAt) -- it may be new although the others are not
if name ~= '' then
  remember(name, {
    fingerprint = fingerprint, turnToken = token, conversationId = id, createdAt = now, expiresAt = c.expiresAt,
    messageCount = c.messageCount, externalId = externalId,
  }, now, recordTTL, tonumber(mostRecords))
end
return {'ok', now, c.expiresAt}
