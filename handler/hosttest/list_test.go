package hosttest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

var exchanges = slices.Concat(paths(), methods(), heads(), bodies(), answers(), broken())

func paths() []exchange {
	var all []exchange
	for _, target := range []string{
		"/api/echo", "/api/echo/", "/api/echo/x/", "/api/echo/x//", "/api/echo/x//y", "/API/Echo/X", "//api/echo/x", "/api//echo/x", "/api/echo//x",
		"/api/items", "/api/items/", "/api/items/1", "/api/items/1/", "/api/items/1//", "/api/items//1", "/api/items/list", "/api/items/LIST",
		"/api/items/a/b", "/api/items/%20", "/api/get", "/api/get/", "/api/gets", "/nowhere", "/health", "/admin", "/admin/host/status", "/", "/?a=b",
		"/api/echo/a%2Fb?y=%2F", "/api/echo/a%2fb", "/api/items/a%2Fb", "/api/items/a%2F..%2Fb", "/x/%2e%2e%2fapi/echo/x", "/api/echo/%zz", "/api/echo/%",
		"/api/echo/%4", "/api/echo/%00", "/api/echo/%0d%0aX", "/api/echo/%7f", "/api/echo/%41%7e%2D", "/api/echo/%25", "/api/echo/%2541",
		"/api/echo/%252F", "/api/echo/%20a", "/api/echo/%c3%a4", "/api/echo/%e2%82%ac%E2%82", "/api/echo/%f0%9f%98%80", "/api/echo/%ff%41",
		"/api/echo/%C0%80", "/api/echo/%ed%a0%80", "/api/echo/\u00e4", "/api/echo/a b", "/api/echo/\x01", `/api/echo/"<>^{|}[]` + "`", `/api/echo/a\b`,
		"/api/echo/%5c", "/api/echo/!$&'()*+,;=:@-._~", "/api/echo/x#y", "/api/echo/%23%3F",
		"/x/../api/echo/y", "/x/%2e%2e/api/echo/y", "/x/%2E./api/echo/y", "/../api/echo/y", "/api/echo/a/./b", "/api/echo/a/%2e/b", "/api/echo/a/..",
		"/api/echo/..", "/api/echo/x/.", "/api/echo/a..b/.../c", "/api/items/..", "/api/items/../echo/x",
		"/api/echo/x?", "/api/echo/x??a", "/api/echo/x?a=1&a=2&b", "/api/echo/x?code=k&clientId=c", "/api/echo/x?a=%zz%", "/api/echo/x?a=%00",
		"/api/echo/x?a=%41%7e%2f%3F%26+", "/api/echo/x?a=%c3%a4", "/api/echo/x?a=%e4%f", `/api/echo/x?a="<>^{|}[]%5b%5d\` + "`", "/api/echo/x?a/../b",
		"/api/echo/x?\u00e4", "/api/echo/x?a b", "/api/echo/x?#y", "*", "api/echo/x", "http://h/api/echo/x?q", "http://h:80/api/echo/x",
		"http://other/api/echo/x", "https://h/api/echo/x",
	} {
		all = append(all, exchange{name: fmt.Sprintf("path %+q", target), line: "GET " + target + " HTTP/1.1"})
	}
	return append(all,
		exchange{name: "a long path", line: "GET /api/echo/" + strings.Repeat("a", 8000) + " HTTP/1.1"},
		exchange{name: "too long a path", line: "GET /api/echo/" + strings.Repeat("a", 8200) + " HTTP/1.1"})
}

func methods() []exchange {
	var all []exchange
	for _, method := range []string{"HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "PROPFIND", "F@O", "F\u00e4O"} {
		all = append(all, exchange{name: "method " + fmt.Sprintf("%+q", method), line: method + " /api/echo/x HTTP/1.1"})
	}
	for _, version := range []string{"HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP", ""} {
		all = append(all, exchange{name: "version " + version, line: "GET /api/echo/x " + version})
	}
	return append(all,
		exchange{name: "HEAD where only GET is", line: "HEAD /api/get HTTP/1.1"},
		exchange{name: "DELETE where only POST is", line: "DELETE /api/items HTTP/1.1"},
		exchange{name: "OPTIONS *", line: "OPTIONS * HTTP/1.1"},
		exchange{name: "CONNECT h:80", line: "CONNECT h:80 HTTP/1.1"},
		exchange{name: "HTTP/1.0 kept alive", line: "GET /api/echo/x HTTP/1.0", head: []string{"Connection: keep-alive"}},
		exchange{name: "HTTP/1.0 without a host", line: "GET /api/echo/x HTTP/1.0", host: "none"},
		exchange{name: "HTTP/1.0 and chunks", line: "GET /api/echo/x HTTP/1.0", do: []string{stream + "2\r\nab\r\n0\r\n\r\n"}},
		exchange{name: "no host", host: "none"},
		exchange{name: "lines that end with LF", raw: "GET /nowhere HTTP/1.1\nHost: h\n\n"},
		exchange{name: "an empty line first", raw: "\r\nGET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n"},
		exchange{name: "TLS", raw: "\x16\x03\x01\x02\x00\x01\r\n\r\n"},
		exchange{name: "two at once", raw: "GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\nGET /nowhere/pipelined HTTP/1.1\r\nHost: h\r\n\r\n"},
	)
}

func heads() []exchange {
	var all []exchange
	for _, host := range []string{"a b", "a/b", "a:x", "a,b", "user@h", "\u00e4", "[::1]:80", "A.B:80", "a_b"} {
		all = append(all, exchange{name: fmt.Sprintf("host %+q", host), host: host})
	}
	for _, lines := range [][]string{
		{"Authorization: Bearer a"},
		{"Authorization: Bearer a", "Authorization: Bearer b"},
		{"Idempotency-Key: a", "Idempotency-Key: b"},
		{"Cookie: a=1", "Cookie: b=2"},
		{"User-Agent: a", "User-Agent: b"},
		{"X-A: 1", "x-a: 2", "X-A:"},
		{"Content-Type: a/b", "Content-Type: c/d"},
		{`If-None-Match: "a"`, `If-None-Match: W/"b"`},
		{"Host: again"},
		{"X-Empty:", "X-Spaces: \t a  b \t "},
		{"X: \u00e4"},
		{"Forwarded: \u00e4"},
		{"X: \xe4"},
		{"X: a\x00b"},
		{"X: a\x01b\x7f"},
		{"X A: 1"},
		{"X : 1"},
		{": 1"},
		{"X"},
		{"X: 1", " folded"},
		{"X@A: 1", "X(A): 2"},
		{"\u00dcn: 1"},
		{"x_under: 1", "UPPER: 1"},
		{"Connection: X-Hop", "X-Hop: 1"},
		{"Connection: close"},
		{"Connection: keep-alive", "Keep-Alive: 5"},
		{"Connection: upgrade", "Upgrade: websocket"},
		{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"},
		{"Proxy-Authorization: a", "Proxy-Authenticate: a", "Proxy-Connection: a", "Proxy-Features: a", "Proxy-Instruction: a",
			"Proxy-Authentication-Info: a", "Security-Scheme: a", "ALPN: a", "Close: a", "Upgrade-Insecure-Requests: 1", "TE: trailers", "Alt-Svc: a",
			"Strict-Transport-Security: a"},
		{"Trailer: X-T", "Via: 1.1 a", "Max-Forwards: 3", "Range: bytes=0-1", "Date: never", "Server: a", "Set-Cookie: a=b"},
		{"Expect: 100-continue"},
		{"Forwarded: for=6.6.6.6", "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Host: evil", "X-Forwarded-Proto: https", "X-Forwarded-Prefix: /p",
			"X-Forwarded-Port: 7"},
		{"X-Azure-Functions-InvocationId: forged", "x-ms-invocation-id: forged", "X-Azure-Functions-HostVersion: forged"},
		{"X-Azure-ClientIP: 1", "CLIENT-IP: 2", "x-ms-client-principal: 3", "x-functions-key: 4", "X-Original-URL: /5", "X-ARR-SSL: 6",
			"X-Azure-FDID: 7"},
		{"traceparent: garbage", "tracestate: x", "baggage: y"},
		{"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
		{"Accept-Encoding: gzip, br", "Accept: text/event-stream", "Origin: https://a.example", "Last-Event-ID: 7"},
		{"Content-Type: application/json"},
		{"Content-Encoding: gzip", "Content-Language: de", "Content-Location: z", "Content-MD5: x", "Content-Range: y", "Content-Disposition: q",
			"Expires: 0", "Last-Modified: never", "Allow: GET"},
		{"X-Long: " + strings.Repeat("a", 30000)},
		{"X-Long: " + strings.Repeat("a", 33000)},
	} {
		all = append(all, exchange{name: "head " + brief(fmt.Sprintf("%+q", lines)), head: lines})
	}
	for _, n := range []int{97, 98} { // with three of our own
		e := exchange{name: fmt.Sprintf("%d header lines", n+3)}
		for i := range n {
			e.head = append(e.head, fmt.Sprintf("X-%d: a", i))
		}
		all = append(all, e)
	}
	return all
}

func bodies() []exchange {
	var all []exchange
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		line := method + " /api/echo/x HTTP/1.1"
		all = append(all,
			exchange{name: method + " with a body", line: line, head: []string{"Content-Length: 4", "Content-Type: text/plain"}, body: []string{"body"}},
			exchange{name: method + " with length 0", line: line, head: []string{"Content-Length: 0"}},
			exchange{name: method + " in chunks", line: line, head: []string{chunked}, body: []string{"2\r\nbo\r\n2\r\n", "dy\r\n0\r\n\r\n"}})
	}
	post := "POST /api/echo/x HTTP/1.1"
	for _, e := range []exchange{
		{name: "an empty body in chunks", head: []string{chunked}, body: []string{"0\r\n\r\n"}},
		{name: "a body that comes slowly", head: []string{"Content-Length: 4"}, body: []string{"", "bo", "dy"}},
		{name: "chunks with extension and trailer", head: []string{chunked, "Trailer: X-T"}, body: []string{"2;a=b\r\nbo\r\n0\r\nX-T: 1\r\n\r\n"}},
		{name: "chunks and a length", head: []string{chunked, "Content-Length: 3"}, body: []string{"2\r\nbo\r\n0\r\n\r\n"}},
		{name: "Chunked, with a capital", head: []string{"Transfer-Encoding: Chunked"}, body: []string{"2\r\nbo\r\n0\r\n\r\n"}},
		{name: "gzip, chunked", head: []string{"Transfer-Encoding: gzip, chunked"}, body: []string{"2\r\nbo\r\n0\r\n\r\n"}},
		{name: "identity", head: []string{"Transfer-Encoding: identity", "Content-Length: 2"}, body: []string{"bo"}},
		{name: "two lengths", head: []string{"Content-Length: 2", "Content-Length: 2"}, body: []string{"bo"}},
		{name: "no number", head: []string{"Content-Length: x"}},
		{name: "a negative length", head: []string{"Content-Length: -1"}},
		{name: "an empty length", head: []string{"Content-Length:"}},
		{name: "a chunk that is none", head: []string{chunked}, body: []string{"", "zz\r\nbo\r\n0\r\n\r\n"}},
		{name: "expecting 100", head: []string{"Expect: 100-continue", "Content-Length: 4"}, body: []string{"", "body"}, asked: true},
		{name: "expecting 100 for chunks", head: []string{"Expect: 100-continue", chunked}, body: []string{"", "2\r\nbo\r\n0\r\n\r\n"}, asked: true},
		{name: "expecting 100, which the handler says", head: []string{"Expect: 100-continue", "Content-Length: 4"}, body: []string{"body"},
			do: []string{"<unread>", "HTTP/1.1 100 Continue\r\n\r\n", "<read>", okay}},
		{name: "expecting 100, and refused", head: []string{"Expect: 100-continue", "Content-Length: 4"}, body: []string{"body"},
			do: []string{"<unread>", "HTTP/1.1 401 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "<close>"}},
		{name: "as large as the limit", head: []string{"Content-Length: 300000"}, body: []string{strings.Repeat("a", 300000)}},
		{name: "larger than the limit", head: []string{"Content-Length: 300001"}, body: []string{strings.Repeat("a", 300001)}},
		{name: "much larger than the limit", head: []string{"Content-Length: 30000000"}},
		{name: "chunks below the limit", head: []string{chunked}, body: []string{"48a80\r\n" + strings.Repeat("a", 0x48a80) + "\r\n", "0\r\n\r\n"}},
		{name: "chunks larger than the limit", head: []string{chunked},
			body: []string{"249f0\r\n" + strings.Repeat("a", 150000) + "\r\n", "249f1\r\n" + strings.Repeat("a", 150001) + "\r\n0\r\n\r\n"}},
		{name: "left in a body with a length", head: []string{"Content-Length: 10"}, body: []string{"", "ab"}, leave: "at once", unheard: true},
		{name: "left in chunks", head: []string{chunked}, body: []string{"2\r\nbo\r\n", "5\r\nab"}, leave: "at once"},
		{name: "refused unread", head: []string{"Content-Length: 4"}, body: []string{"body"},
			do: []string{"<unread>", "HTTP/1.1 413 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno", "<close>"}},
		{name: "refused early, the rest of the body read", head: []string{chunked}, body: []string{"2\r\nbo\r\n", "2\r\ndy\r\n", "0\r\n\r\n"},
			do: []string{"<unread>", "HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno", "<read>"}},
		{name: "refused early, and the connection reset", head: []string{chunked}, body: []string{"2\r\nbo\r\n", "2\r\ndy\r\n", "2\r\ndy\r\n", "0\r\n\r\n"},
			do: []string{"<unread>", "HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno", "<reset>"}},
		{name: "HTTP/1.0 with a body", line: "POST /api/echo/x HTTP/1.0", head: []string{"Content-Length: 4"}, body: []string{"body"}},
		{name: "HTTP/1.0 without a length", line: "POST /api/echo/x HTTP/1.0"},
		{name: "a body for nobody", line: "POST /nowhere HTTP/1.1", head: []string{"Content-Length: 100000"}, body: []string{strings.Repeat("a", 100000)}},
		{name: "chunks for nobody", line: "POST /nowhere HTTP/1.1", head: []string{chunked}, body: []string{"2\r\nbo\r\n0\r\n\r\n"}},
		{name: "too much for nobody", line: "POST /nowhere HTTP/1.1", head: []string{"Content-Length: 300001"}, body: []string{strings.Repeat("a", 300001)}},
	} {
		if e.line == "" {
			e.line = post
		}
		all = append(all, e)
	}
	return all
}

func answers() []exchange {
	var all []exchange
	for _, status := range []int{101, 200, 201, 202, 204, 205, 206, 299, 301, 302, 304, 307, 400, 401, 403, 404, 405, 409, 410, 413, 415, 422, 429, 431, 500,
		501, 502, 503, 504, 599, 600, 999} {
		all = append(all, exchange{name: fmt.Sprintf("status %d", status),
			do: []string{fmt.Sprintf("HTTP/1.1 %d Why\r\nContent-Length: 0\r\n\r\n", status)}})
	}
	for _, status := range []int{200, 204, 205, 304, 404} {
		all = append(all, exchange{name: fmt.Sprintf("status %d without a length", status),
			do: []string{fmt.Sprintf("HTTP/1.1 %d %s\r\nETag: \"a\"\r\nConnection: close\r\n\r\n", status, http.StatusText(status)), "<close>"}})
	}
	for name, do := range map[string][]string{
		"204 with a body":      {"HTTP/1.1 204 No\r\nContent-Length: 4\r\n\r\nbody"},
		"205 with a body":      {"HTTP/1.1 205 No\r\nContent-Length: 4\r\n\r\nbody"},
		"304 with a length":    {"HTTP/1.1 304 No\r\nContent-Length: 4\r\nETag: \"a\"\r\n\r\n"},
		"401 with a challenge": {"HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer error=\"x\"\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"},
		"429 with a time":      {"HTTP/1.1 429 No\r\nRetry-After: 7\r\nContent-Type: application/problem+json\r\nContent-Length: 2\r\n\r\n{}"},
		"a redirect":           {"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n"},
		"all kinds of headers": {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-A: 1\r\nx-a: 2\r\nVary: a\r\nVary: b\r\n" +
			"Keep-Alive: 5\r\nProxy-Authenticate: a\r\nAlt-Svc: a\r\nUpgrade: h2c\r\nTE: a\r\nUpgrade-Insecure-Requests: 1\r\nHTTP2-Settings: a\r\n" +
			"Close: a\r\nSecurity-Scheme: a\r\nStrict-Transport-Security: max-age=1\r\nTrailer: q\r\nServer: mine\r\nDate: mine\r\nX-Powered-By: a\r\n" +
			"Empty:\r\nAllow: GET\r\nAllow: POST\r\nLocation: /else\r\nVia: a\r\nForwarded: a\r\nX-Forwarded-For: a\r\nAccess-Control-Allow-Origin: *\r\n" +
			"Content-Encoding: gzip\r\nLast-Modified: a\r\nCache-Control: no-store\r\nContent-Language: de\r\nExpires: 0\r\nPragma: a\r\n\r\n"},
		"a header that is not ASCII":            {"HTTP/1.1 200 OK\r\nX: \u00e4\r\nContent-Length: 0\r\n\r\n"},
		"a header with a control":               {"HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 0\r\n\r\n"},
		"a header with a tab":                   {"HTTP/1.1 200 OK\r\nX: a\tb\r\nContent-Length: 0\r\n\r\n"},
		"a header with DEL":                     {"HTTP/1.1 200 OK\r\nX: a\x7fb\r\nContent-Length: 0\r\n\r\n"},
		"a folded header":                       {"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n"},
		"a space before the colon":              {"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n"},
		"a long header":                         {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 5000) + "\r\nContent-Length: 0\r\n\r\n"},
		"no reason":                             {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"},
		"no reason for 299":                     {"HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n"},
		"LF alone":                              {"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"},
		"103 first":                             {"HTTP/1.1 103 Early\r\nLink: a\r\n\r\n" + okay},
		"100 first":                             {"HTTP/1.1 100 Continue\r\n\r\n" + okay},
		"two lengths in the answer":             {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok"},
		"a length and chunks":                   {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"},
		"until the connection ends":             {"HTTP/1.1 200 OK\r\n\r\n", "abc", "<close>"},
		"HTTP/1.0 until the connection ends":    {"HTTP/1.0 200 OK\r\n\r\n", "abc", "<close>"},
		"more than the length":                  {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokay", "<close>"},
		"no content type":                       {"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"},
		"a large answer":                        {"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n", "<fill 2000000>"},
		"a stream":                              {stream, "3\r\n:\n\n\r\n", "<pause 100>", "3\r\nb\n\n\r\n", "<pause 100>", "0\r\n\r\n"},
		"a stream with trailers":                {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n", "2\r\nab\r\n", "0\r\nX-T: 1\r\n\r\n"},
		"an empty stream":                       {stream, "<pause 100>", "0\r\n\r\n"},
		"an answer, and the connection is shut": {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", "<close>"},
	} {
		all = append(all, exchange{name: name, do: do})
	}
	slices.SortStableFunc(all[37:], func(a, b exchange) int { return strings.Compare(a.name, b.name) })
	head := "HEAD /api/echo/x HTTP/1.1"
	return append(all,
		exchange{name: "HEAD with a length", line: head, do: []string{"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Type: a/b\r\n\r\n"}},
		exchange{name: "HEAD with chunks", line: head, do: []string{stream}},
		exchange{name: "HEAD, 404", line: head, do: []string{"HTTP/1.1 404 No\r\nContent-Length: 10\r\n\r\n"}},
		exchange{name: "a WebSocket", head: []string{"Connection: upgrade", "Upgrade: websocket"},
			do: []string{"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "<close>"}},
		exchange{name: "HEAD nowhere", line: "HEAD /nowhere HTTP/1.1"},
		exchange{name: "left in a stream", do: []string{stream, "7\r\nfirst\n\n\r\n", "<left>"}, leave: "first\n\n"},
		exchange{name: "left after chunks", line: "POST /api/echo/x HTTP/1.1", head: []string{chunked}, body: []string{"2\r\nbo\r\n0\r\n\r\n"},
			do: []string{"<left>"}, leave: "at once"},
		exchange{name: "left after a body", line: "POST /api/echo/x HTTP/1.1", head: []string{"Content-Length: 2"}, body: []string{"bo"},
			do: []string{"<left>"}, leave: "at once"},
		exchange{name: "left before an answer", do: []string{"<left>"}, leave: "at once"},
	)
}

func broken() []exchange {
	var all []exchange
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "DELETE", "POST", "PUT", "PATCH"} {
		line := method + " /api/echo/x HTTP/1.1"
		all = append(all,
			exchange{name: method + " closed before an answer", line: line, do: []string{"<close>"}},
			exchange{name: method + " with a body, closed", line: line, head: []string{"Content-Length: 4"}, body: []string{"body"}, do: []string{"<close>"}})
	}
	post := "POST /api/echo/x HTTP/1.1"
	return append(all, []exchange{
		{name: "GET with length 0, closed", head: []string{"Content-Length: 0"}, do: []string{"<close>"}},
		{name: "GET with a type, closed", head: []string{"Content-Type: a/b"}, do: []string{"<close>"}},
		{name: "POST with length 0, closed", line: post, head: []string{"Content-Length: 0"}, do: []string{"<close>"}},
		{name: "POST in chunks, closed", line: post, head: []string{chunked}, body: []string{"2\r\nbo\r\n0\r\n\r\n"}, do: []string{"<close>"}},
		{name: "POST in no chunks, closed", line: post, head: []string{chunked}, body: []string{"0\r\n\r\n"}, do: []string{"<close>"}},
		{name: "GET reset", do: []string{"<reset>"}},
		{name: "POST with a body, reset", line: post, head: []string{"Content-Length: 4"}, body: []string{"body"}, do: []string{"<reset>"}},
		{name: "GET, half a status line", do: []string{"HTTP/1.1 20", "<close>"}},
		{name: "GET, half a head", do: []string{"HTTP/1.1 200 OK\r\nX: a\r\n", "<close>"}},
		{name: "GET, garbage", do: []string{"garbage\r\n\r\n", "<close>"}},
		{name: "POST with a body, garbage", line: post, head: []string{"Content-Length: 4"}, body: []string{"body"}, do: []string{"garbage\r\n\r\n", "<close>"}},
		{name: "GET, a code that is none", do: []string{"HTTP/1.1 abc OK\r\n\r\n", "<close>"}},
		{name: "GET, a header that is none", do: []string{"HTTP/1.1 200 OK\r\nX A: 1\r\nContent-Length: 0\r\n\r\n"}},
		{name: "GET, 100 and no more", do: []string{"HTTP/1.1 100 Continue\r\n\r\n", "<close>"}},
		{name: "cut before the body", do: []string{"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "<close>"}},
		{name: "cut before the first chunk", do: []string{stream, "<close>"}},
		{name: "cut in the body", do: []string{"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab", "<pause 1000>", "<close>"}},
		{name: "cut in a stream", do: []string{stream, "2\r\nab\r\n", "<pause 1000>", "<close>"}},
		{name: "reset in a stream", do: []string{stream, "2\r\nab\r\n", "<pause 1000>", "<reset>"}},
		{name: "a first chunk that is none", do: []string{stream, "zz\r\n", "<close>"}},
		{name: "a later chunk that is none", do: []string{stream, "2\r\nab\r\n", "<pause 1000>", "zz\r\n", "<close>"}},
	}...)
}
