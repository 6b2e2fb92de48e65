-- cancel asks for the end of the live turn.
-- KEYS: the owner's, the conversation's
-- ARGV: 1 id   2 tenant   3 user   4 id of the turn's question, or '' for any   5 token of this call
-- Returns {'ok', '1' when this call did or else ''}, {'missing'} or {'damaged'}. The token tells this call's own first execution, as long as no
-- other turn has followed.

local id, tenantId, userId, messageId, token = unpack(ARGV)
local now = clock()
local c, outcome = open(id, tenantId, userId, 'cancelToken', 'cancelCall')
if not c then return outcome end
local question = c.questionSeq > 0 and message(c.questionSeq)
if not question or messageId ~= '' and idOf(question) ~= messageId then return {'ok', ''} end
if c.cancelToken == c.turnToken then return {'ok', c.cancelCall == token and '1' or ''} end
if c.turnLeaseUntil <= now then return {'ok', ''} end
redis.call('HSET', conversation, 'cancelToken', c.turnToken, 'cancelCall', token)
return {'ok', '1'}
