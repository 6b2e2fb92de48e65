package store

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// mutant is the scripts with one rule left out: the old text, which must be there once, becomes the new one. The contract's rule must
// fail on it.
type mutant struct{ old, new, rule string }

// mutants are broken scripts.
var mutants = map[string]mutant{
	"no fencing":                             {"if c.turnToken ~= token or c.turnLeaseUntil <= now then\n  local at", "if false then\n  local at", "a finish of another turn is no repetition"},
	"two live turns":                         {"if live then return {'busy', text(c.turnLeaseUntil - now)} end\nif c.messageCount", "if c.messageCount", "a busy conversation takes no second turn"},
	"no idempotency of a send":               {"past = known[1] or known[2]", "past = nil", "every call of a turn may be repeated"},
	"a begin that does not know itself":      {"if c.turnToken == token or past and past.turnToken == token then", "if false then", "every call of a turn may be repeated"},
	"a late begin that appends again":        {" or redis.call('HEXISTS', conversation, 'message:' .. messageId) == 1", "", "every call of a turn may be repeated"},
	"a reply's id is free":                   {"if there and idOf(there) == messageId or redis", "if redis", "an id of the conversation is taken"},
	"a record that is bound to nothing":      {"if not known[i] then remember(name, past", "if false then remember(name, past", "every name that a repeated request brings is bound to it"},
	"another request replayed":               {"if known[i] and known[i].fingerprint ~= fingerprint then reused = true end", "", "a turn whose agent was not asked is taken up again by its request"},
	"no idempotency of a start":              {"if past and past.conversationId then", "if false then", "a claimed start is made once"},
	"a start without a claim":                {"if reused or not past or past.turnToken ~= token or past.conversationId then return {'lost'} end", "", "a claimed start is made once"},
	"a finish that does not know itself":     {"  local at = ended()\n", "  local at = nil\n", "every call of a turn may be repeated"},
	"a finish that takes the next for its":   {" or seq == c.questionSeq and c.turnLeaseUntil > 0 then return nil end", " then return nil end", "a finish of another turn is no repetition"},
	"no end of a dead turn":                  {"if c.turnLeaseUntil == 0 or c.turnLeaseUntil > now then return false end", "do return false end", "a lease that runs out ends the turn"},
	"messages without an expiry":             {"if c.messageCount > 0 then redis.call('PEXPIREAT', messages, at) end", "", "what a caller got is a copy"},
	"an expiry that is not put off":          {"c.accessedAt, c.expiresAt = now, now + ttl end", "c.accessedAt = now end", "a started conversation can be got, as it was given"},
	"the lag comes off the promise":          {"math.min(c.expiresAt + lag, ", "math.min(c.expiresAt, ", "renewing puts off the end"},
	"every access is counted":                {"local isCounted, limit = now - c.accessedAt >= tonumber(lag), ", "local isCounted, limit = true, ", "a get may be unseen"},
	"an index that outlives its data":        {"  redis.call('PEXPIREAT', conversation, at)\n", "  redis.call('PEXPIREAT', conversation, at - 60000)\n", "an access that is not counted is worth the full time too"},
	"an index out of order":                  {"summarize(c) + redis.call('ZADD', INDEX[c.status], c.updatedAt, c.id)", "summarize(c)", "a claimed start is made once"},
	"an index that is not left":              {"redis.call('ZREM', was, id)", "", "a claimed start is made once"},
	"a list that skips ties":                 {"      if same[j] < after then", "      if false then", "paging shows each conversation once, and equal times are no trap"},
	"a version that stands still":            {"  c.version = c.version + 1\n", "", "a lease that runs out ends the turn"},
	"a stamp that goes back":                 {"c.updatedAt = math.max(now, c.updatedAt)", "c.updatedAt = now", "times never go backwards within a conversation"},
	"any version may be changed":             {"if version ~= '0' and tonumber(version) ~= c.version then return {'version'} end", "", "an update is made to the version that it names"},
	"a closed conversation takes messages":   {"if c.status ~= 'active' then return {'closed'} end", "", "only an active conversation takes messages"},
	"conversations without a limit":          {"if count >= tonumber(most) then return {'too many'} end", "", "there is a limit to an owner's conversations"},
	"messages without a limit":               {"if c.messageCount + 2 > tonumber(most) then return {'full'} end", "", "a conversation holds so many messages"},
	"records without a limit":                {"if surplus > 0 then drop(", "if false then drop(", "an owner has so many records, and the oldest goes first"},
	"turns without a limit of a begin":       {"if u.turns >= tonumber(mostTurns) then return {'rate', text(u.windowStart + WINDOW - now)} end\nif c.title", "if c.title", "an owner begins so many turns a minute"},
	"turns without a limit when taken up":    {"  if u.turns >= tonumber(mostTurns) then return {'rate', text(u.windowStart + WINDOW - now)} end\n  countTurn", "  countTurn", "a turn that is taken up again is one more"},
	"a busy agent is not asked again":        {"agent_busy = true, ", "", "a turn that its agent did not take is taken up again by its request"},
	"bytes without a limit of a begin":       {"  if used(now).bytes + more > tonumber(mostBytes) then return {'quota'} end\n", "", "an owner has so many bytes"},
	"bytes that never expire":                {"  charge(-bytes)\n  redis.call('HDEL', summaries, unpack(ids))", "  redis.call('HDEL', summaries, unpack(ids))", "a deleted conversation leaves its room to others"},
	"bytes without a limit of a start":       {"if u.bytes + c.bytes + size > tonumber(mostBytes) then return {'quota'} end", "", "an owner has so many bytes"},
	"bytes without a limit of an update":     {"if more > 0 and used(now).bytes + more > tonumber(mostBytes) then return {'quota'} end", "", "an owner has so many bytes"},
	"a page of any length":                   {"if c.bytes <= bytes then return first, redis", "if true then return first, redis", "a page has so many bytes, and at least one message"},
	"a renewal that is no access":            {"if access(c, now, ttl, lag, age) then\n  save(c, {'accessedAt', 'expiresAt'})\n  expire(c, used(now), lag, age)\nend\nreturn {'ok', c.cancel", "return {'ok', c.cancel", "renewing puts off the end"},
	"a lease that is not moved":              {"redis.call('HSET', conversation, 'turnLeaseUntil', c.turnLeaseUntil)", "", "a renewed lease lives on"},
	"a known version sent again":             {"if tonumber(version) == c.version then return reply end", "", "a version that is known is not sent again"},
	"a change of nothing":                    {"if #changed == 0 then\n", "if false then\n", "an update changes what it says"},
	"a turn that is not taken up again":      {"if past and NOT_TAKEN[past.failure]", "if false", "a turn whose agent was not asked is taken up again by its request"},
	"a turn taken up behind another":         {" and past.questionSeq == c.messageCount and c.status", " and c.status", "a turn whose agent was not asked is taken up again by its request"},
	"a turn taken up when closed":            {" and c.status == 'active' then\n  if u.turns", " then\n  if u.turns", "a repeated request finds its turn in a conversation that is closed"},
	"a record that outlives its time":        {"if #gone > 0 then drop(gone) end", "", "every name that a repeated request brings is bound to it"},
	"a late finish that is lost":             {"return answer and idOf(answer) == idOf(replies[1]) and createdAt(answer) or nil", "return nil", "every call of a turn may be repeated"},
	"a finish of another taken for its own":  {"return answer and idOf(answer) == idOf(replies[1]) and createdAt(answer) or nil", "return text(c.updatedAt)", "every call of a turn may be repeated"},
	"a start that does not know itself":      {"if first[1] then return {'ok', first[1], first[2]} end", "", "starting twice under one id is starting once"},
	"a list of several orders":               {"if indexes > 1 then", "if false then", "a conversation that changes its status leaves its old list"},
	"a list of what has expired":             {"if refused(function() moreExpired = purge(now) end) then moreExpired = true end", "", "start, begin and get put off the end, list and update do not"},
	"a summary that stands still":            {"summarize(c) + redis", "redis", "a started conversation can be got, as it was given"},
	"a context without a limit":              {"math.max(1, c.questionSeq - context)", "1", "the context is the last messages before the question"},
	"a retry that does not wait":             {"if past and live and past.turnToken == c.turnToken then return {'busy', text(c.turnLeaseUntil - now), past.questionSeq} end", "", "a repeated request finds its turn as it ended"},
	"a replay without replies":               {"record.replyCount, record.endedAt = #replies, c.updatedAt", "record.endedAt = c.updatedAt", "a turn that is taken up again ends like any other"},
	"a replay without its failure":           {"if failure ~= '' then record.failure = failure end", "", "a repeated request finds its turn as it failed"},
	"an agent's reference that is wiped":     {"if value ~= '' and value ~= c[name] then", "if value ~= c[name] then", "what an agent does not say anew is kept"},
	"a claim that anyone may take":           {"if past and past.turnToken ~= token and past.turnLeaseUntil > now then", "if false then", "a claimed start is made once"},
	"a claim that is not given up":           {"elseif past and past.turnToken == token then", "elseif false then", "a claimed start is made once"},
	"a taken id that waits":                  {"if there and idOf(there) == messageId", "if live then return {'busy', text(c.turnLeaseUntil - now)} end\nif there and idOf(there) == messageId", "an id of the conversation is taken"},
	"a page from the start":                  {"math.max(1, last - limit + 1)", "1", "a page holds the messages before a place, oldest first"},
	"an id is taken by its last digits":      {"if there and idOf(there) == messageId or", "if there or", "an id is free in another conversation, and when it is only like one"},
	"an update that is an access":            {"if INDEX[c.status] ~= was then redis.call('ZREM', was, id) end", "if INDEX[c.status] ~= was then redis.call('ZREM', was, id) end c.accessedAt = now", "an update is made to the version that it names"},
	"a begin that is no access":              {"local counted = access(c, now, ttl, lag, age)", "local counted = false", "an access is counted at most once within the lag"},
	"a get that is no access":                {"  if access(c, now, ttl, lag, age) then\n    save", "  if false then\n    save", "a started conversation can be got, as it was given"},
	"metadata that is merged":                {"if name == 'metadata' then c.metadataBytes = #value end", "if name == 'metadata' then c.metadataBytes = 0 end", "an update changes what it says"},
	"an update that is made again":           {"  if known[1] then return show(c) end\n", "", "an update that changes nothing is remembered"},
	"an update without a record":             {"if record ~= '' then remember(record,", "if false then remember(record,", "an update with a record is made once"},
	"a record that is not found":             {"known[1] and '1' or ''}\n", "''}\n", "an update with a record is made once"},
	"an erasure that forgets no record":      {"{expiries, summaries, active, completed, archived, records, recordExpiries, usage}) do redis.call('UNLINK', key)", "{usage}) do redis.call('UNLINK', key)", "a running turn cannot bring an erased conversation back"},
	"an erasure of the first step":           {"if #found == 0 then\n  for", "found = {}\nif #found == 0 then\n  for", "everything of an owner is erased, and nothing of another"},
	"an erasure that counts messages":        {"if (i - own) % 3 == 1 then ended", "if true then ended", "everything of an owner is erased, and nothing of another"},
	"a deletion that a late start undoes":    {"if redis.call('HEXISTS', records, tombstone) == 1 then return {'missing'} end", "", "a start with a key that was deleted is not made again"},
	"a deletion that leaves its place":       {"  forget({id})\nend", "end", "a deleted conversation leaves its room to others"},
	"a deletion that leaves its attributes":  {"redis.call('UNLINK', conversation, messages, events)", "redis.call('UNLINK', messages, events)", "a deleted conversation is gone, and no other"},
	"a deletion that does not know itself":   {"if outcome[1] == 'missing' and past and past.turnToken == token then return {'ok', ''} end", "", "a deletion knows its own first execution"},
	"a deletion that is not replayed":        {"  if known[1] then return {'ok', known[1].turnToken == token and '' or '1'} end\n", "", "a deletion with a record is done once"},
	"a deletion without a record":            {"if name ~= '' then remember(name, {fingerprint = fingerprint, turnToken = token}, now, ttl, tonumber(most)) end", "", "a deletion with a record is done once"},
	"a log without fencing":                  {"if c.turnToken ~= token or c.turnLeaseUntil <= now then return {'lost'} end\nc.turnLeaseUntil", "c.turnLeaseUntil", "every call on a log may be repeated"},
	"a log that is not fenced by its turn":   {"if c.turnToken ~= token or c.turnLeaseUntil <= now then return {'lost'} end\nc.turnLeaseUntil", "if c.turnLeaseUntil <= now then return {'lost'} end\nc.turnLeaseUntil", "every call on a log may be repeated"},
	"a log of any size":                      {"if u.logged + size > LOG_BYTES then return '1' end", "", "an owner logs so much"},
	"a log's size that never ends":           {"if now - u.logStart >= LOG_WINDOW or now < u.logStart then u.logStart, u.logged = now, 0 end", "", "an owner logs so much"},
	"a partial reply that is whole":          {"state == 'complete' and state or 'partial'", "'complete'", "what arrived of an answer is kept as partial"},
	"a failure that ends as a cancellation":  {"if stateOf(question) ~= state then return nil end", "", "what arrived of an answer is kept as partial"},
	"a cancellation of any turn":             {" or messageId ~= '' and idOf(question) ~= messageId then", " then", "a live turn is cancelled once"},
	"a cancellation for ever":                {"c.cancelToken == token and '1' or ''", "c.cancelToken and '1' or ''", "a live turn is cancelled once"},
	"a cancellation that comes too late":     {"if state == 'complete' and c.cancelToken == token then return {'cancelled'} end", "", "a live turn is cancelled once"},
	"a cancellation of the dead":             {"if c.turnLeaseUntil <= now then return {'ok', ''} end\nredis", "redis", "a live turn is cancelled once"},
	"a cancellation of everybody's":          {"{'ok', c.cancelCall == token and '1' or ''}", "{'ok', '1'}", "a live turn is cancelled once"},
	"a log that is left behind":              {"redis.call('UNLINK', conversation, messages, events)", "redis.call('UNLINK', conversation, messages)", "a log ends with its conversation"},
	"a turn that begins in silence":          {"redis.pcall('PUBLISH', events, '')", "", "turns that begin are told to those who watch"},
	"a failure that is forgotten":            {"if state ~= 'complete' then mark(c, state, failure) end", "", "a finish without replies may be repeated"},
	"a failure without its code":             {"'complete' then mark(c, state, failure)", "'complete' then mark(c, state)", "what arrived of an answer is kept as partial"},
	"a message that stays failed":            {"  mark(c, 'complete')\n", "", "a turn that is taken up again ends like any other"},
	"entries that are there again":           {"if tonumber(given[i]) > last then size", "if true then size", "an owner logs so much"},
	"entries that are there twice":           {"  if isFirst then last = 0 end\n", "  last = 0\n", "an owner logs so much"},
	"a log that grows for ever":              {"isFirst and {'MAXLEN', kept + 1} or {}", "{}", "a log has what the last two turns told that told something"},
	"a log without the turn before":          {"    kept = last % ATTEMPT - 1", "    kept = 0", "a log has what the last two turns told that told something"},
	"a log that lives too long":              {"'PEXPIREAT', events, now + LOG_TIME", "'PEXPIREAT', events, now + 2 * LOG_TIME", "a log is gone so long after its turn"},
	"a log that lives too short":             {"'PEXPIREAT', events, now + LOG_TIME", "'PEXPIREAT', events, now + LOG_WINDOW", "a log is gone so long after its turn"},
	"ids that are used again":                {"c.again = (tonumber(c.againSeq or 0) == past.questionSeq and c.again or 0) + 1", "c.again = 0", "a turn that is taken up again has new ids"},
	"ids of a third time":                    {"c.again = (tonumber(c.againSeq or 0) == past.questionSeq and c.again or 0) + 1", "c.again = 1", "a turn that is taken up again has new ids"},
	"ids of another question":                {"local again = tonumber(c.againSeq or 0) == c.questionSeq and tonumber(c.again) or 0", "local again = tonumber(c.again) or 0", "a turn that is taken up again has new ids"},
	"a page of entries without an end":       {"if count == most or size > mostBytes and count > 0 then", "if false then", "a log is read page by page"},
	"a page of turns without an end":         {"isFull = turns > 0 and bytes > mostBytes", "isFull = false", "a log is read page by page"},
	"a page of half a turn":                  {"    if roleOf(stored) == 'user' then\n      isFull = turns > 0", "    do\n      isFull = turns > 0", "a log is read page by page"},
	"a dead turn that lives":                 {"local isLive = c.turnLeaseUntil > now", "local isLive = c.turnLeaseUntil > 0", "of a turn that is dead it is said that it failed"},
	"a turn that was told is told again":     {"if isTold and seq >= c.questionSeq then return reply end", "", "a log has what the last two turns told that told something"},
	"a turn of which the question is before": {"  local previous = c.questionSeq\n", "  local previous = seq\n", "a log has what the last two turns told that told something"},
	"a title of any message":                 {"if c.title then title = '' end", "", "the first message that has a title gives it"},
	"an owner's title that is empty":         {"if isSet then redis.call('HSET', conversation, 'title', '') end", "", "a title that the owner has set stays"},
	"an owner's title that is lost":          {"if isSet then\n  c.title", "if false then\n  c.title", "a title that the owner has set stays"},
	"a title without room":                   {"local more = #given + #title", "local more = #given", "there must be room for the title that a message gives"},
	"a greeting that is not shown":           {"if preview ~= '' then shown", "if false then shown", "list shows the last message that has text"},
	"a question that is not shown":           {"c.lastText = 'user', preview", "c.lastText = 'user', ''", "list shows the last message that has text"},
	"a reply that is not shown":              {"if preview ~= '' then c.lastRole, c.lastText = 'assistant'", "if false then c.lastRole, c.lastText = 'assistant'", "list shows the last message that has text"},
	"a card that is shown":                   {"if preview ~= '' then c.lastRole, c.lastText = 'assistant'", "if true then c.lastRole, c.lastText = 'assistant'", "list shows the last message that has text"},
	"an age and a lag":                       {"math.min(c.expiresAt + lag, limitOf(c, age))", "c.expiresAt + lag", "a conversation lives no longer than its age"},
	"an age that is not shown":               {"  c.expiresAt = math.min(c.expiresAt, limit)\n", "", "a conversation lives no longer than its age"},
	"an age without its start":               {"math.min(now + ttl, limitOf(c, age))", "now + ttl", "an age that is less than the time to live is the end"},
	"a new age that waits":                   {"if not isCounted and c.expiresAt <= limit then", "if not isCounted then", "a new limit holds from the next access, whether it is counted or not"},
	"a new age for the young":                {"if now < limitOf(c, age) then return false end", "do return false end", "what is too old for a new limit ends at its next access"},
	"access goes back":                       {"= now - c.accessedAt >= tonumber(lag)", "= math.abs(now - c.accessedAt) >= tonumber(lag)", "times never go backwards within a conversation"},
}

// mutantVariable names the mutant that the contract is to be run on, in a process of its own.
const mutantVariable = "CHATKEEP_TEST_MUTANT"

func TestMain(m *testing.M) {
	if name := os.Getenv(mutantVariable); name != "" {
		mutants[name].apply()
	}
	os.Exit(m.Run())
}

var sources = map[*script]string{
	claimScript: preludeLua + claimLua, startScript: preludeLua + startLua, beginScript: preludeLua + beginLua,
	appendScript: preludeLua + appendLua, finishScript: preludeLua + finishLua, updateScript: preludeLua + updateLua,
	getScript: preludeLua + getLua, listScript: preludeLua + listLua, deleteScript: preludeLua + deleteLua, recallScript: preludeLua + recallLua, eraseScript: preludeLua + eraseLua,
	cancelScript: preludeLua + cancelLua, eventsScript: preludeLua + eventsLua,
}

// apply breaks the scripts that have the old text.
func (m mutant) apply() {
	for s, source := range sources {
		s.lua = redis.NewScript(strings.Replace(source, m.old, m.new, 1))
	}
}

// TestTheContractCatchesEveryBrokenScript shows that the contract can fail.
func TestTheContractCatchesEveryBrokenScript(t *testing.T) {
	for name, m := range mutants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := preludeLua + claimLua + startLua + beginLua + appendLua + cancelLua + eventsLua + finishLua + updateLua + getLua + listLua + deleteLua + recallLua + eraseLua
			require.Equal(t, 1, strings.Count(all, m.old), m.old)
			rule := "^TestContract$/^redis$/^" + regexp.QuoteMeta(strings.ReplaceAll(m.rule, " ", "_")) + "$"
			run := exec.CommandContext(t.Context(), os.Args[0], "-test.run", rule)
			run.Env = append(os.Environ(), mutantVariable+"="+name)
			out, err := run.CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, "nobody noticed")
			require.Contains(t, string(out), "--- FAIL: TestContract/redis/", "it failed otherwise: %s", out)
		})
	}
}
