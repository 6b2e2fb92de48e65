package hosttest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

var (
	parameter = regexp.MustCompile(`\\\{[a-zA-Z]+\\\}`)
	catchAll  = regexp.MustCompile(`/\\\{\\\*(\\\*)?[a-zA-Z]+\\\}$`)
)

// compileRoute compiles an ASP.NET template: literals that ignore case, {name} for one segment, {*name} for the rest. An empty segment
// matches nothing; one slash at the end is ignored.
func compileRoute(template string) (*regexp.Regexp, error) {
	quoted := "/" + regexp.QuoteMeta(template)
	end := `/?`
	if rest := catchAll.FindString(quoted); rest != "" {
		quoted, end = strings.TrimSuffix(quoted, rest), `(/([^/].*)?)?`
	}
	quoted = parameter.ReplaceAllString(quoted, `[^/]+`)
	if strings.Contains(quoted, `\{`) {
		return nil, fmt.Errorf("template %q is more than this host understands", template)
	}
	return regexp.MustCompile(`^(?is)` + quoted + end + `$`), nil
}

// match returns the first function, by name, of that method and path.
func (s script) match(method, path string) bool {
	return slices.ContainsFunc(s.functions, func(f function) bool {
		return slices.Contains(f.methods, method) && f.route.MatchString(path)
	})
}

// decodePath reads a path as the host does before it routes: escapes are decoded but for those of the slash and those that are no UTF-8, and
// then dot segments are resolved. It refuses a null character.
func decodePath(raw string) (string, bool) {
	var out strings.Builder
	for i := 0; i < len(raw); {
		if raw[i] != '%' {
			out.WriteByte(raw[i])
			i++
			continue
		}
		char, length := unescape(raw[i:])
		switch char {
		case "\x00":
			return "", false
		case "", "/":
			char = raw[i : i+length]
		}
		out.WriteString(char)
		i += length
	}
	return resolveDots(out.String()), true
}

// unescape decodes the character whose escapes text begins with, and returns how long they are; nothing, if it is no escape, or none of UTF-8.
func unescape(text string) (string, int) {
	var raw [utf8.UTFMax]byte
	for n := range raw {
		at := 3 * n
		if len(text) < at+3 || text[at] != '%' || !isHex(text[at+1]) || !isHex(text[at+2]) {
			break
		}
		raw[n] = hexValue(text[at+1])<<4 | hexValue(text[at+2])
		if n == 0 && raw[0] < utf8.RuneSelf {
			return string(raw[:1]), 3
		}
		if r, size := utf8.DecodeRune(raw[:n+1]); r != utf8.RuneError && size == n+1 {
			return string(raw[:n+1]), at + 3
		}
	}
	return "", 1
}

func isHex(c byte) bool { return strings.IndexByte("0123456789abcdefABCDEF", c) >= 0 }

func hexValue(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}

func resolveDots(path string) string {
	var out []string
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		switch segment {
		case "..":
			if len(out) > 1 {
				out = out[:len(out)-1]
			}
			fallthrough
		case ".":
			if i == len(segments)-1 {
				out = append(out, "")
			}
		default:
			out = append(out, segment)
		}
	}
	return strings.Join(out, "/")
}

const unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"

// encodePath escapes a decoded path for the handler. A percent sign in it is one that was not decoded, and is escaped as well.
func encodePath(path string) string { return encode(path, unreserved+"!$&'()*+,;=:@/") }

// encodeQuery normalises a query as .NET's Uri does: it escapes what must be, and decodes what need not be escaped.
func encodeQuery(raw string) string {
	var out strings.Builder
	for i := 0; i < len(raw); {
		char, length := raw[i:i+1], 1
		if char == "%" {
			char, length = unescape(raw[i:])
			if length == 1 && len(raw) >= i+3 && isHex(raw[i+1]) && isHex(raw[i+2]) {
				char, length = "", 3 // an escape, but not of UTF-8
			}
		}
		switch {
		case char == "" && length == 1:
			out.WriteString("%25")
		case char == "", length == 3 && !strings.Contains(unreserved, char):
			out.WriteString(raw[i : i+length])
		default:
			out.WriteString(encode(char, unreserved+"!$&'()*+,;=:@/?[]"))
		}
		i += length
	}
	return out.String()
}

func encode(text, allowed string) string {
	var out strings.Builder
	for i := range len(text) {
		if c := text[i]; strings.IndexByte(allowed, c) >= 0 {
			out.WriteByte(c)
		} else {
			fmt.Fprintf(&out, "%%%02X", c)
		}
	}
	return out.String()
}
