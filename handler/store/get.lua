-- get returns a conversation and a page of its messages, and counts as an access, unless the lag is longer than any.
-- KEYS: the owner's, the conversation's
-- ARGV: 1 id   2 tenant   3 user   4 time to live, ms   5 lag, ms   6 age at most, ms, or 0
--       7 seq to stay below, or 0   8 messages at most   9 version that is known, or 0   10 bytes of messages at most
-- When Redis takes no writes, the access is not counted, a dead turn not ended and a summary not repaired: reads go on.
-- Returns what show does, then the seq of the first message and messages, {'missing'} or {'damaged'}. When the version is known,
-- no message is read. A second execution does no harm.

local id, tenantId, userId, ttl, lag, age, before, limit, version, bytes = unpack(ARGV)
before = tonumber(before)
local now = clock()
local c, outcome = openToShow(id, tenantId, userId)
if not c then return outcome end
local isOver
if refused(function() isOver = outlived(c, now, age) end) or isOver then return {'missing'} end

-- update writes what this call changes, if anything.
local function update()
  settle(c, now)
  if access(c, now, ttl, lag, age) then
    save(c, {'accessedAt', 'expiresAt'})
    expire(c, used(now), lag, age)
  else
    local s = summary(id)
    if not s or s.version ~= c.version then save(c, {'version'}) end
  end
end

if refused(update) then c = openToShow(id, tenantId, userId) end

local reply = show(c)
if tonumber(version) == c.version then return reply end
local last = c.messageCount
if before > 0 then last = math.min(last, before - 1) end
local first, elements = page(c, math.max(1, last - limit + 1), last, tonumber(bytes), 1)
reply[#reply + 1] = first
for _, element in ipairs(elements) do reply[#reply + 1] = element end
return reply
