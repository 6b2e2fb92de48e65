package api

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"chatkeep/handler/chat"

	"github.com/stretchr/testify/require"
)

func TestNullIsNotGiven(t *testing.T) {
	s := open(t)
	a := s.send("POST", "/api/chat/start", "alice", `{"title":null,"metadata":null}`)
	require.Equal(t, 201, a.status, a.text)
	require.Empty(t, a.body["conversation"].(map[string]any)["title"])
	id := a.body["conversationId"]
	for _, body := range []string{`{"conversationId":%q,"text":"x","value":null,"messageId":null}`, `{"conversationId":%q,"text":null,"value":{}}`} {
		a = s.send("POST", "/api/chat/send", "alice", fmt.Sprintf(body, id))
		require.Equal(t, 200, a.status, a.text)
	}
	list := s.send("POST", "/api/chat/list-conversations", "alice", `{"limit":null,"cursor":null,"status":null}`)
	require.Equal(t, 200, list.status, list.text)
	require.Equal(t, s.send("POST", "/api/chat/list-conversations", "alice", `{}`).text, list.text)
}

func TestHowABodyMayCome(t *testing.T) {
	s := open(t)
	for name, row := range map[string]struct {
		body    string
		headers []string
		status  int
		code    string
	}{
		"a parameter without a value": {`{}`, []string{"Content-Type: application/json; charset="}, 201, ""},
		"a broken parameter":          {`{}`, []string{"Content-Type: application/json;;\"x"}, 201, ""},
		"spaces around the type":      {`{}`, []string{"Content-Type:  application/json ; charset=utf-8"}, 201, ""},
		"another case":                {`{}`, []string{"Content-Type: APPLICATION/json"}, 201, ""},
		"a longer type":               {`{}`, []string{"Content-Type: application/jsonx"}, 415, "unsupported_media_type"},
		"a type that is a parameter":  {`{}`, []string{"Content-Type: text/plain; application/json"}, 415, "unsupported_media_type"},
		"two types in one":            {`{}`, []string{"Content-Type: application/json, application/json"}, 415, "unsupported_media_type"},
		"a byte order mark":           {"\uFEFF{}", nil, 201, ""},
		"nothing but the mark":        {"\uFEFF", nil, 201, ""},
		"two marks":                   {"\uFEFF\uFEFF{}", nil, 400, "invalid_request"},
		"a mark inside":               {"{\uFEFF}", nil, 400, "invalid_request"},
		"as it is":                    {`{}`, []string{"Content-Encoding: identity"}, 201, ""},
		"as it is, in capitals":       {`{}`, []string{"Content-Encoding: Identity"}, 201, ""},
		"compressed":                  {`{}`, []string{"Content-Encoding: gzip"}, 415, "unsupported_media_type"},
		"compressed, then not":        {`{}`, []string{"Content-Encoding: br, identity"}, 415, "unsupported_media_type"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.send("POST", "/api/chat/start", "alice", row.body, row.headers...)
			require.Equal(t, row.status, a.status, a.text)
			if row.code != "" {
				requireProblem(t, a, row.status, row.code)
			}
			compressed := strings.Contains(name, "compressed")
			require.Equal(t, compressed, a.header.Get("Accept-Encoding") == "identity")
		})
	}
}

// What is wrong is named, whatever its name is, and is never our error.
func TestNamesOfCallersAreShownInPart(t *testing.T) {
	s := open(t)
	for _, name := range []string{
		strings.Repeat("é", 300), "a" + strings.Repeat("é", 300), strings.Repeat("😀", 1000), "ab" + strings.Repeat("漢", 20_000), strings.Repeat(`\u0000`, 300),
		strings.Repeat("x", 200_000),
	} {
		for path, body := range map[string]string{
			"unknown":       `{"%s":1}`,
			"repeated":      `{"metadata":{"%[1]s":"","%[1]s":""}}`,
			"ill-typed":     `{"metadata":{"%s":1}}`,
			"null":          `{"metadata":{"%s":null}}`,
			"refused later": `{"metadata":{"%s":"\u0000"}}`,
		} {
			body := fmt.Sprintf(body, name)
			if len(body) > maxBody {
				continue
			}
			a := s.send("POST", "/api/chat/start", "alice", body)
			requireProblem(t, a, 400, "invalid_request")
			shown := a.body["errors"].([]any)[0].(map[string]any)["path"].(string)
			require.LessOrEqual(t, len(shown), 200, path)
			require.True(t, utf8.ValidString(shown))
			require.NotContains(t, shown, "\uFFFD", "a character was cut")
		}
	}
	require.Empty(t, s.log.String())
}

func TestAtMostTwentyFieldsAreNamed(t *testing.T) {
	s := open(t)
	var pairs []string
	for i := range 1000 {
		pairs = append(pairs, fmt.Sprintf(`"k%04d":"\u0000"`, i))
	}
	a := s.send("POST", "/api/chat/start", "alice", `{"metadata":{`+strings.Join(pairs, ",")+`}}`)
	requireProblem(t, a, 400, "invalid_request")
	require.Len(t, a.body["errors"], 20)
	require.Less(t, len(a.text), 8<<10)
}

func TestMeasure(t *testing.T) {
	for text, want := range map[string][2]int{
		`{}`:                    {2, 1},
		`: {"a":{}} , {"b":[[[`: {8, 2},
		`{"a" : [1, [2]],` + "\r\n\t" + `"b":{}}`: {20, 3},
		`{"{[":"]} "}`:        {12, 1},
		`{"\"{":"\\","b":{}}`: {19, 2},
		`{"a":"\u00e9"}`:      {14, 1},
		`{"a`:                 {3, 1},
		`{"a\`:                {5, 1},
		``:                    {0, 0},
	} {
		size, depth := measure([]byte(text))
		require.Equal(t, want, [2]int{size, depth}, text)
	}
}

func TestBoundsOfAValue(t *testing.T) {
	s := open(t)
	nested := func(depth int) string { return strings.Repeat(`{"a":`, depth-1) + "{}" + strings.Repeat("}", depth-1) }
	long := func(size int) string { return `{"a":"` + strings.Repeat("x", size-8) + `"}` }
	for _, row := range []struct {
		name, value string
		status      int
	}{
		{"one level", nested(1), 200},
		{"as deep as may be", nested(maxDepth), 200},
		{"a level deeper", nested(maxDepth + 1), 400},
		{"deeper than a parser goes", nested(20_000), 400},
		{"as long as may be", long(chat.MaxValueBytes), 200},
		{"a byte longer", long(chat.MaxValueBytes + 1), 400},
		{"as long as may be, with spaces", strings.Replace(long(chat.MaxValueBytes), ":", strings.Repeat(" ", 10_000)+":", 1), 200},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := s.send("POST", "/api/chat/send", "alice", fmt.Sprintf(`{"conversationId":%q,"value":%s}`, s.start("alice"), row.value))
			require.Equal(t, row.status, a.status, a.text)
			if row.status == 400 {
				require.Equal(t, "value", a.body["errors"].([]any)[0].(map[string]any)["path"])
			}
		})
	}
}

// The time to read a body follows its bytes, however they are arranged, and what is too large is refused before it is read.
func TestTimeToDecodeFollowsTheBytes(t *testing.T) {
	shapes := map[string]func(n int) string{
		"members": func(n int) string {
			var b strings.Builder
			for i := range n / 10 {
				fmt.Fprintf(&b, `,"%05d":1`, (i*7919)%100_000)
			}
			return "{" + b.String()[1:] + "}"
		},
		"levels":   func(n int) string { return strings.Repeat(`{"a":`, n/6) + "1" + strings.Repeat("}", n/6) },
		"elements": func(n int) string { return `{"a":[0` + strings.Repeat(",{}", n/3) + "]}" },
		"escapes":  func(n int) string { return `{"a":"` + strings.Repeat(`\u00e9`, n/6) + `"}` },
	}
	took := func(body string) time.Duration {
		best := time.Hour
		for range 10 {
			r := httptest.NewRequestWithContext(t.Context(), "POST", "/", strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Idempotency-Key", "k")
			began := time.Now()
			if req, err := decode[sendRequest](&response{ResponseWriter: httptest.NewRecorder(), request: r}, r, false); err == nil {
				_, err = req.input(r)
				require.NoError(t, err)
			}
			best = min(best, time.Since(began))
		}
		return best
	}
	plain := took(`{"text":"` + strings.Repeat("x", 250_000) + `"}`)
	for name, shape := range shapes {
		half, whole := took(`{"value":`+shape(chat.MaxValueBytes/2)+`}`), took(`{"value":`+shape(chat.MaxValueBytes-10)+`}`)
		refused := took(`{"value":` + shape(250_000) + `}`)
		t.Logf("%s: %v, %v, refused %v; plain text %v", name, half, whole, refused, plain)
		require.Less(t, whole, 4*half+time.Millisecond, name)
		require.Less(t, refused, 10*plain+time.Millisecond, name)
	}
}
