package api

import (
	"bytes"
	"encoding/json"
	commandline "flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"chatkeep/handler/agent"
	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/contract"
	"chatkeep/handler/store"

	"github.com/stretchr/testify/require"
)

var (
	update = commandline.Bool("update", false, "write docs/api.http")
	seed   = commandline.Uint64("seed", 1, "of the random inputs")
)

// operations calls visit with each operation of the contract, in one order.
func operations(t *testing.T, visit func(path, method string, operation map[string]any)) {
	t.Helper()
	paths := contract.Load(t).Document["paths"].(map[string]any)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		item := paths[path].(map[string]any)
		for _, method := range slices.Sorted(maps.Keys(item)) {
			if operation, ok := item[method].(map[string]any); ok && method != "parameters" {
				visit(path, strings.ToUpper(method), operation)
			}
		}
	}
}

// The contract has every route with its method and the headers that it reads, and no other. Whatever takes GET takes HEAD too.
func TestTheContractHasEveryRoute(t *testing.T) {
	s := open(t)
	wanted := make(map[string][]string)
	for _, r := range s.server.routes() {
		if r.name != "" {
			wanted[r.name+" "+r.method+" "+r.path] = slices.Sorted(slices.Values(r.headers))
		}
	}
	described := make(map[string][]string)
	operations(t, func(path, method string, operation map[string]any) {
		var headers []string
		parameters, _ := operation["parameters"].([]any)
		for _, p := range parameters {
			p := p.(map[string]any)
			if p["$ref"] == "#/components/parameters/IdempotencyKey" {
				headers = append(headers, "Idempotency-Key")
			} else if p["in"] == "header" && p["name"] != "Last-Event-ID" { // which EventSource may always send
				headers = append(headers, p["name"].(string))
			}
		}
		slices.Sort(headers)
		described[fmt.Sprint(operation["operationId"])+" "+method+" "+path] = headers
	})
	require.Equal(t, wanted, described)
}

// The contract has every code of a problem, under its status, and no other.
func TestTheContractHasEveryCode(t *testing.T) {
	wanted := map[string]bool{"400 invalid_request": true, "409 turn_in_progress": true, "429 rate_limited": true, "500 internal": true}
	for _, p := range problems {
		wanted[fmt.Sprint(p.Status, " ", p.Code)] = true
	}
	for _, p := range failures {
		wanted[fmt.Sprint(p.Status, " ", p.Code)] = true
	}
	described := make(map[string]bool)
	for _, answer := range contract.Load(t).Document["components"].(map[string]any)["responses"].(map[string]any) {
		text, err := json.Marshal(answer)
		require.NoError(t, err)
		found := regexp.MustCompile(`"code":\{"enum":\[(.*?)\]\},"status":\{"const":(\d+)\}`).FindSubmatch(text)
		require.NotNil(t, found, "%s", text)
		for code := range strings.SplitSeq(strings.ReplaceAll(string(found[1]), `"`, ""), ",") {
			described[string(found[2])+" "+code] = true
		}
	}
	require.Equal(t, wanted, described)
}

// Anybody gets the contract, and keeps it for a while.
func TestTheContractIsServed(t *testing.T) {
	s := open(t)
	const path = "/api/openapi.json"
	a := s.send("GET", path, nobody, "")
	require.Equal(t, 200, a.status)
	require.Equal(t, "application/json", a.header.Get("Content-Type"))
	require.Equal(t, "public, max-age=300", a.header.Get("Cache-Control"))
	want, err := json.Marshal(contract.Load(t).Document)
	require.NoError(t, err)
	require.Equal(t, string(want)+"\n", a.text)
	tag := a.header.Get("ETag")
	head := s.send("HEAD", path, nobody, "")
	require.Equal(t, 200, head.status)
	require.Equal(t, tag, head.header.Get("ETag"))
	require.Equal(t, fmt.Sprint(len(a.text)), head.header.Get("Content-Length"))
	for known, status := range map[string]int{tag: 304, "W/" + tag: 304, `"x", ` + tag: 304, "*": 304, `"x"`: 200, "": 200, strings.Trim(tag, `"`): 200} {
		a := s.send("GET", path, nobody, "", "If-None-Match: "+known)
		require.Equal(t, status, a.status, known)
		require.Equal(t, tag, a.header.Get("ETag"))
		require.Equal(t, status == 304, a.text == "")
	}
	requireProblem(t, s.send("POST", path, "alice", "{}"), 405, "method_not_allowed")
}

var (
	anyID     = regexp.MustCompile(`"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"`)
	anyMoment = regexp.MustCompile(`"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"`)
	exampleID = "01890a5d-ac96-774b-bcce-b302099a8057"
)

// Each example of a request is answered as the example of the same name says, but for ids, times and users.
func TestTheExamplesOfTheContract(t *testing.T) {
	s := open(t)
	var id string
	replayed := 0
	plain := func(value any) string {
		text, err := json.Marshal(value)
		require.NoError(t, err)
		text = anyMoment.ReplaceAll(anyID.ReplaceAll(text, []byte(`"id"`)), []byte(`"time"`))
		return regexp.MustCompile(`"userId":"[^"]*"`).ReplaceAllString(string(text), `"userId":"user"`)
	}
	all := make(map[string]func())
	operations(t, func(path, method string, operation map[string]any) {
		all[operation["operationId"].(string)] = func() {
			requests := map[string]any{"": nil}
			body, _ := operation["requestBody"].(map[string]any)
			if body != nil {
				requests, _ = body["content"].(map[string]any)["application/json"].(map[string]any)["examples"].(map[string]any)
			}
			for status, answer := range operation["responses"].(map[string]any) {
				content, _ := answer.(map[string]any)["content"].(map[string]any)
				examples, _ := content["application/json"].(map[string]any)
				answers, _ := examples["examples"].(map[string]any)
				for name := range answers {
					_, has := requests[name]
					require.True(t, has || body == nil, "%s has no request %s", operation["operationId"], name)
				}
				for _, name := range slices.Sorted(maps.Keys(requests)) { // each makes what the next needs
					request := requests[name]
					if !strings.HasPrefix(status, "2") || content == nil {
						continue
					}
					text := ""
					if request != nil {
						sent, err := json.Marshal(request.(map[string]any)["value"])
						require.NoError(t, err)
						text = strings.ReplaceAll(string(sent), exampleID, id)
					}
					a := s.send(method, strings.ReplaceAll(path, "{conversationId}", id), "alice", text)
					require.Equal(t, status, fmt.Sprint(a.status), "%s %s: %s", operation["operationId"], name, a.text)
					if id == "" && operation["operationId"] == "start" {
						id = a.body["conversationId"].(string)
					}
					for other, answer := range answers {
						if other == name || body == nil {
							require.JSONEq(t, plain(answer.(map[string]any)["value"]), plain(json.RawMessage(a.text)), "%s %s", operation["operationId"], other)
							replayed++
						}
					}
				}
			}
		}
	})
	order := []string{"start", "send", "get", "list-conversations", "ui-history", "update", "cancel", "erase"} // each makes what the next needs
	for _, name := range order {
		if name == "get" { // the card example came too
			s.send("DELETE", "/api/chat/conversations/"+id, "alice", "")
			id = s.send("POST", "/api/chat/start", "alice", `{"title":"Trip to Rome","metadata":{"source":"web"}}`).body["conversationId"].(string)
			s.send("POST", "/api/chat/send", "alice", fmt.Sprintf(`{"conversationId":%q,"text":"Hello"}`, id))
		}
		all[name]()
	}
	require.Equal(t, len(order), replayed, "each has an example of its answer")
}

// docs/api.http has each example of a request, for editors that can send them: go test ./handler/api -run TestAPIHTTP -update writes it.
func TestAPIHTTP(t *testing.T) {
	blocks := make(map[string]string)
	operations(t, func(path, method string, operation map[string]any) {
		var b strings.Builder
		name := operation["operationId"].(string)
		write := func(title, body string) {
			_, _ = fmt.Fprintf(&b, "### %s%s\n%s {{url}}%s\n", operation["summary"], title, method, strings.ReplaceAll(path, "{conversationId}", "{{conversationId}}"))
			if operation["security"] == nil {
				_, _ = fmt.Fprintln(&b, "Authorization: Bearer {{token}}")
			}
			if body != "" {
				_, _ = fmt.Fprintf(&b, "Content-Type: application/json\n\n%s\n", strings.ReplaceAll(body, exampleID, "{{conversationId}}"))
			}
			_, _ = fmt.Fprintln(&b)
		}
		requests, ok := operation["requestBody"].(map[string]any)
		if !ok {
			write("", "")
		} else {
			examples := requests["content"].(map[string]any)["application/json"].(map[string]any)["examples"].(map[string]any)
			for _, example := range slices.Sorted(maps.Keys(examples)) {
				text, err := json.MarshalIndent(examples[example].(map[string]any)["value"], "", "  ")
				require.NoError(t, err)
				write(": "+example, string(text))
			}
		}
		blocks[name] = b.String()
	})
	var want strings.Builder
	want.WriteString("# The examples of openapi.yaml, for REST Client (Visual Studio Code) and the HTTP client of JetBrains. make run prints the token.\n" +
		"@url = http://127.0.0.1:8080\n@token = …\n@conversationId = " + exampleID + "\n\n")
	for _, name := range slices.Sorted(maps.Keys(blocks)) {
		want.WriteString(blocks[name])
	}
	const path = "../../docs/api.http"
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(want.String()), 0o644))
	}
	has, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want.String(), string(has), "go test ./handler/api -run TestAPIHTTP -update")
}

// Inputs at and beyond every edge that the schemas of the contract have: none is answered by 500, or otherwise than the contract says. What
// is refused as invalid though the contract allows it is refused for what a schema cannot say.
func TestInputsOfTheContract(t *testing.T) {
	few := limits()
	few.Messages, few.Conversations = 100_000, 100_000
	s := openOver(t, store.NewMemory(few), agent.Echo{}, Edge{}, authtest.New())
	s.server.limits.Stream = time.Millisecond
	random := rand.New(rand.NewPCG(*seed, 0))
	id := s.start("alice") // of the token's user
	alice, bob := "Bearer "+s.issuer.Token(tenant, "alice", nil), "Bearer "+s.issuer.Token(tenant, "bob", nil)
	token := alice
	schemas := contract.Load(t).Document["components"].(map[string]any)["schemas"].(map[string]any)
	inputs, answered, unsaid := 0, make(map[int]int), make(map[string]bool)
	ask := func(method, path, body string, headers ...string) {
		request := httptest.NewRequestWithContext(t.Context(), method, "/", strings.NewReader(body))
		request.URL.Path, request.URL.RawQuery, _ = strings.Cut(path, "?")
		request.Header.Set("Authorization", token)
		if body != "" {
			request.Header.Set("Content-Type", "application/json")
		}
		for i := 0; i+1 < len(headers); i += 2 {
			request.Header[http.CanonicalHeaderKey(headers[i])] = strings.Split(headers[i+1], "\n")
		}
		recorder := httptest.NewRecorder()
		s.server.ServeHTTP(recorder, request)
		answer := recorder.Result()
		text, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		inputs++
		answered[answer.StatusCode]++
		require.Less(t, answer.StatusCode, 500, "seed %d: %s %s %v\n%.500q\n%s", *seed, method, path, headers, body, text)
		require.NoError(t, contract.Load(t).Check(request, []byte(body), answer, text), "seed %d: %v", *seed, headers)
		if answer.StatusCode == 400 && contract.Load(t).Allows(request, []byte(body)) == nil {
			var p problem
			require.NoError(t, json.Unmarshal(text, &p))
			for _, e := range p.Errors {
				unsaid[regexp.MustCompile(` at byte \d+$`).ReplaceAllString(e.Path+" "+e.Message, "")] = true
			}
		}
		if token == bob && answer.StatusCode < 300 {
			id = s.start("bob") // it was deleted
		}
	}
	values := edges(random, id)
	alices := id
	operations(t, func(path, method string, operation map[string]any) {
		token, id = alice, alices
		if operation["operationId"] == "erase" || operation["operationId"] == "delete" { // or nothing would be left for the others
			token, id = bob, s.start("bob")
		}
		target := func() string { return strings.ReplaceAll(path, "{conversationId}", id) }
		usual := ""
		if operation["requestBody"] != nil {
			usual = "{}"
		}
		parameters, _ := operation["parameters"].([]any)
		for _, value := range values {
			text := strings.Trim(value, `"`)
			if strings.Contains(path, "{") && !strings.Contains(text, "?") {
				ask(method, strings.ReplaceAll(path, "{conversationId}", text), usual)
			}
			for _, p := range parameters {
				p := p.(map[string]any)
				name, _ := p["name"].(string)
				if p["$ref"] != nil {
					name = "Idempotency-Key"
				}
				switch {
				case p["in"] == "query":
					ask(method, target()+"?"+name+"="+query(text), "")
					ask(method, target()+"?"+name+"="+query(text)+"&"+name+"="+query(text), "")
				case !strings.ContainsAny(text, "\x00\r\n"): // which no server passes on
					ask(method, target(), usual, name, text)
					ask(method, target(), usual, name, text+"\n"+text)
				}
			}
		}
		for _, bad := range []string{"?", "??", "?&", "?=", "?%", "?a=%zz", "?a=%ff", "?limit=1;before=2", "?unknown=1", "/", "/x", "//"} {
			ask(method, target()+bad, usual)
		}
		bad := map[string][]string{
			"Authorization": {
				"", "Bearer", "Bearer ", "Bearer x", "Bearer a.b.c", "Basic eDp4", token + "\n" + token, token + "x", "Bearer é", "Bearer " + strings.Repeat("x", 20_000),
			},
			"Content-Encoding": {"gzip", "identity", "", "br, identity"},
			"Accept":           {"text/event-stream", "text/event-stream;q=0", "text/html", "", "*/*;q=x"},
			"Content-Length":   {"-1", "x"},
			"Content-Type": {
				"", "text/plain", "application/json; charset=utf-8", "application/json; charset=latin1", "application/merge-patch+json", "application/xml",
				"application/json\ntext/plain", "application/json, text/plain", ";", "é",
			},
		}
		for _, name := range slices.Sorted(maps.Keys(bad)) {
			for _, value := range bad[name] {
				ask(method, target(), usual, name, value)
			}
		}

		body, ok := operation["requestBody"].(map[string]any)
		if !ok {
			return
		}
		ref := body["content"].(map[string]any)["application/json"].(map[string]any)["schema"].(map[string]any)["$ref"].(string)
		members := schemas[ref[strings.LastIndex(ref, "/")+1:]].(map[string]any)["properties"].(map[string]any)
		whole := func() map[string]string {
			if operation["operationId"] == "ui" {
				return map[string]string{"id": `"` + id + `"`, "messages": `[{"id":"m","role":"user","parts":[{"type":"text","text":"hi"}]}]`}
			}
			if operation["operationId"] == "send" {
				return map[string]string{"conversationId": `"` + id + `"`, "text": `"hi"`}
			}
			return map[string]string{}
		}
		for _, value := range values {
			ask(method, target(), value)
			for _, name := range slices.Sorted(maps.Keys(members)) {
				object := whole()
				object[name] = value
				ask(method, target(), object2JSON(object))
			}
			object := whole()
			object["unknown"] = value
			ask(method, target(), object2JSON(object))
		}
		for _, name := range slices.Sorted(maps.Keys(whole())) {
			object := whole()
			delete(object, name)
			ask(method, target(), object2JSON(object))
		}
		text := object2JSON(whole())
		for cut := range len(text) {
			ask(method, target(), text[:cut])
		}
	})
	t.Logf("%d inputs, by status %v, seed %d", inputs, answered, *seed)
	require.GreaterOrEqual(t, inputs, 2000)
	require.Greater(t, answered[200], 500, "hardly any input was good")
	require.Equal(t, slices.Sorted(slices.Values([]string{
		"Content-Type must be given once", "Idempotency-Key must be given once", "Last-Event-ID must be given once", "after must be given once",
		"before must be one whole number above 0", "limit must be one whole number above 0", "follow must be true or false", // of which there are two
		"title is not valid JSON in UTF-8", "text is not valid JSON in UTF-8", "cursor is not valid JSON in UTF-8", // half a surrogate pair, and no UTF-8
		"metadata.a appears more than once", "value.a appears more than once",
		"messages.0 must be an object",                                           // when it is the last
		"unknown is not valid JSON in UTF-8", "unknown.a appears more than once", // though ui ignores it
		"metadata must have at most 16 pairs",                                    // with those that it has
		"value must be an object of at most 32768 bytes, at most 64 levels deep", // however it is nested
		"limit must be a whole number",                                           // 1e2
		"cursor must be a nextCursor of your own list with the same status; start again without one",
	})), slices.Sorted(maps.Keys(unsaid)))
}

// edges are JSON values at and beyond the bounds of the schemas, and some at random.
func edges(random *rand.Rand, id string) []string {
	word := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	all := []string{
		"null", "true", "false", "0", "1", "-1", "100", "101", "1000", "1001", "1.5", "1e2", "1e400", "9007199254740992", "9007199254740993", "-0",
		`""`, `" "`, `"\u0000"`, `"\u001f"`, `"\ud800"`, "\"\xff\"", `"\\x"`, `"e\u0301"`, `"👩‍👩‍👧"`, `"` + id + `"`, `"` + strings.ToUpper(id) + `"`, `"` + id[:35] + `"`,
		`"01890a5d-ac96-774b-bcce-b302099a8057"`, `"1-1"`, `"active"`, `"completed"`, `"archived"`, `"deleted"`, `"a,b"`, `"a b"`, `"W/\"1\""`, `"\"1\""`, `"*"`,
		word(1), word(64), word(65), word(200), word(201), word(255), word(256), word(512), word(513), word(32768), word(32769),
		"[]", "[1]", "{}", `{"a":"b"}`, `{"a":null}`, `{"a":1}`, `{"":"b"}`, `{"a":"b","a":"c"}`, `{"a":{"b":{}}}`, "{\"a\":\"\t\"}",
		strings.Repeat(`{"a":`, 63) + "1" + strings.Repeat("}", 63), strings.Repeat(`{"a":`, 70) + "1" + strings.Repeat("}", 70),
		"{", "}", `{"a"}`, "nul", "NaN", "[1,]", "// x", "{}{}", "\ufeff{}",
	}
	for _, n := range []int{15, 16, 17} {
		var pairs []string
		for i := range n {
			pairs = append(pairs, fmt.Sprintf(`"k%d":"v"`, i))
		}
		all = append(all, "{"+strings.Join(pairs, ",")+"}")
	}
	all = append(all, fmt.Sprintf(`{%q:"v"}`, strings.Repeat("k", 64)), fmt.Sprintf(`{%q:"v"}`, strings.Repeat("k", 65)),
		fmt.Sprintf(`{"k":%s}`, word(512)), fmt.Sprintf(`{"k":%s}`, word(513)))
	for range 40 {
		runes := make([]rune, random.IntN(12))
		for i := range runes {
			runes[i] = rune(random.IntN(0x3000))
		}
		text, _ := json.Marshal(string(runes))
		all = append(all, string(text))
	}
	return all
}

func object2JSON(members map[string]string) string {
	var b bytes.Buffer
	for i, name := range slices.Sorted(maps.Keys(members)) {
		if i > 0 {
			b.WriteByte(',')
		}
		_, _ = fmt.Fprintf(&b, "%q:%s", name, members[name])
	}
	return "{" + b.String() + "}"
}

// query percent-encodes what a query cannot have.
func query(text string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c > ' ' && c < 0x7f && !strings.ContainsRune(`%&+#"<>;\^{}|`+"`", rune(c)) {
			b.WriteByte(c)
		} else {
			_, _ = fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
