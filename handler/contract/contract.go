// Package contract holds what the API is asked and answers to openapi.yaml, for tests.
package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// Contract is the API's contract. It is safe for concurrent use.
type Contract struct {
	Document map[string]any // as JSON has it, with json.Number

	mu      sync.Mutex
	schemas *jsonschema.Compiler
}

// Root is the project's folder.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

const name = "openapi.json" // of the document, for the compiler of its schemas

var load = sync.OnceValues(func() (*Contract, error) {
	text, err := asJSON()
	if err != nil {
		return nil, err
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	schemas := jsonschema.NewCompiler() // of JSON Schema 2020-12, which is OpenAPI 3.1's
	schemas.AssertFormat()
	return &Contract{Document: document.(map[string]any), schemas: schemas}, schemas.AddResource(name, document)
})

// asJSON is openapi.yaml as JSON.
func asJSON() ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(Root(), "openapi.yaml"))
	if err != nil {
		return nil, err
	}
	var document map[string]any
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	return json.Marshal(document)
}

// Load returns the contract of openapi.yaml.
func Load(t testing.TB) *Contract {
	t.Helper()
	c, err := load()
	require.NoError(t, err)
	return c
}

// Check holds an exchange to the contract: the answer always, and the request when it was accepted. What the handler has not answered, as
// its lack of an X-Request-Id shows, is not its business, nor are preflights and paths that are not the API's.
func (c *Contract) Check(request *http.Request, sent []byte, response *http.Response, got []byte) error {
	path := request.URL.Path
	isAPI := strings.HasPrefix(path, "/api/") || path == "/health"
	if response.Header.Get("X-Request-Id") == "" || request.Method == http.MethodOptions || !isAPI {
		return nil
	}
	_, operation := c.operation(request)
	var err error
	switch {
	case operation.members == nil && response.StatusCode < 400:
		err = errors.New("openapi.yaml does not have it")
	case operation.members == nil || response.StatusCode == http.StatusMethodNotAllowed: // which any path may answer
		err = c.checkAnswer(request, c.ofAnyPath(response.StatusCode), response, got)
	default:
		err = c.checkAnswer(request, c.member(c.member(operation, "responses"), strconv.Itoa(response.StatusCode)), response, got)
	}
	if err == nil && response.StatusCode < 300 {
		err = c.Allows(request, sent)
	}
	if err != nil {
		return fmt.Errorf("%s %s is answered by %d: %.2000w\nasked: %.2000s\nanswered: %.2000s", request.Method, path, response.StatusCode, err, sent, got)
	}
	return nil
}

// ofAnyPath is what the contract says of an error that any path may be answered with.
func (c *Contract) ofAnyPath(status int) object {
	return c.at("/components/responses/" + map[int]string{
		http.StatusBadRequest: "BadRequest", http.StatusForbidden: "Forbidden", http.StatusNotFound: "NotFound", http.StatusMethodNotAllowed: "MethodNotAllowed",
		http.StatusNotImplemented: "HostTooOld", http.StatusInternalServerError: "Internal",
	}[status])
}

// checkAnswer holds an answer to what is described for it.
func (c *Contract) checkAnswer(request *http.Request, described object, response *http.Response, got []byte) error {
	if described.members == nil {
		return errors.New("openapi.yaml does not have this status")
	}
	if err := c.checkHeaders(c.member(described, "headers"), response.Header); err != nil || request.Method == http.MethodHead {
		return err
	}
	content := c.member(described, "content")
	if content.members == nil {
		if len(got) > 0 {
			return errors.New("openapi.yaml has no body for this status")
		}
		return nil
	}
	media, schema, err := c.schemaOf(content, response.Header)
	if err != nil {
		return err
	}
	if part := c.member(schema, "contentSchema"); part.members != nil {
		return c.checkParts(part, media, got)
	}
	return c.checkJSON(schema, got)
}

// schemaOf is that of the content's media type.
func (c *Contract) schemaOf(content object, header http.Header) (media string, schema object, err error) {
	media, _, _ = strings.Cut(header.Get("Content-Type"), ";")
	media = strings.ToLower(strings.TrimSpace(media))
	schema = c.member(c.member(content, media), "schema")
	if schema.members == nil {
		return "", object{}, fmt.Errorf("openapi.yaml does not have %s here", media)
	}
	return media, schema, nil
}

// ofHTTP are headers that HTTP gives every answer, or our streams; the contract describes them in words, or not at all.
var ofHTTP = []string{
	"Cache-Control", "Connection", "Content-Length", "Content-Type", "Date", "Server", "Transfer-Encoding", "Vary", "X-Accel-Buffering", "X-Content-Type-Options",
}

// checkHeaders looks for headers that an answer has and its description has not, or the other way round, and for values that are not right.
func (c *Contract) checkHeaders(described object, header http.Header) error {
	declared := make(map[string]bool)
	for name := range described.members {
		declared[http.CanonicalHeaderKey(name)] = true
		values, this := header.Values(name), c.member(described, name)
		if len(values) == 0 && this.members["required"] == true {
			return fmt.Errorf("the header %s is missing", name)
		}
		for _, value := range values {
			if err := c.checkText(c.member(this, "schema"), value); err != nil {
				return fmt.Errorf("the header %s: %w", name, err)
			}
		}
	}
	for name := range header {
		if !declared[name] && !slices.Contains(ofHTTP, name) && !strings.HasPrefix(name, "Access-Control-") {
			return fmt.Errorf("openapi.yaml does not have the header %s of this status", name)
		}
	}
	if !declared["X-Request-Id"] {
		return errors.New("openapi.yaml does not have the header X-Request-Id of this status")
	}
	return nil
}

// checkParts holds each event of a stream, or each line, to a schema.
func (c *Contract) checkParts(schema object, media string, got []byte) error {
	if media == "text/event-stream" {
		for block := range strings.SplitSeq(strings.TrimSuffix(string(got), "\n\n"), "\n\n") {
			if err := c.checkEvent(schema, block); err != nil {
				return err
			}
		}
		return nil
	}
	for line := range bytes.Lines(got) {
		if err := c.checkJSON(schema, line); err != nil {
			return err
		}
	}
	return nil
}

// Event holds an event of a stream, as it is on the wire, to the schema of that name: one of an object with the event's fields. What has no
// data is none.
func (c *Contract) Event(name, block string) error {
	return c.checkEvent(c.at("/components/schemas/"+name), block)
}

func (c *Contract) checkEvent(schema object, block string) error {
	event := make(map[string]any)
	for line := range strings.SplitSeq(strings.TrimRight(block, "\n"), "\n") {
		field, value, _ := strings.Cut(line, ": ")
		event[field] = value
	}
	delete(event, "") // a comment
	text, hasData := event["data"].(string)
	if !hasData {
		return nil
	}
	if text != "[DONE]" { // the one that is not JSON
		data, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			return fmt.Errorf("data %.200s: %w", text, err)
		}
		event["data"] = data
	}
	return c.check(schema, event)
}

// Allows returns nil for a request that the contract allows.
func (c *Contract) Allows(request *http.Request, sent []byte) error {
	template, operation := c.operation(request)
	if operation.members == nil {
		return errors.New("openapi.yaml does not have it")
	}
	security, ok := operation.members["security"].([]any)
	if (!ok || len(security) > 0) && !strings.HasPrefix(strings.ToLower(request.Header.Get("Authorization")), "bearer ") {
		return errors.New("openapi.yaml does not allow it without a token")
	}
	query, err := url.ParseQuery(request.URL.RawQuery)
	if err != nil {
		return err
	}
	for _, list := range []object{c.member(c.at("/paths"), template), operation} {
		parameters, _ := list.members["parameters"].([]any)
		for i := range parameters {
			p := c.at(list.at + "/parameters/" + strconv.Itoa(i))
			if err := c.allowsParameter(request, template, query, p); err != nil {
				return fmt.Errorf("openapi.yaml does not allow the request: %v: %w", p.members["name"], err)
			}
		}
	}
	if err := c.allowsBody(request, c.member(operation, "requestBody"), sent); err != nil {
		return fmt.Errorf("openapi.yaml does not allow the request: %w", err)
	}
	return nil
}

// allowsParameter holds a parameter to what is described.
func (c *Contract) allowsParameter(request *http.Request, template string, query url.Values, described object) error {
	var values []string
	name := described.members["name"].(string)
	switch described.members["in"] {
	case "path":
		for i, step := range strings.Split(template, "/") {
			if step == "{"+name+"}" {
				values = append(values, strings.Split(request.URL.Path, "/")[i])
			}
		}
	case "query":
		values = query[name]
	case "header":
		values = request.Header.Values(name)
	}
	if len(values) == 0 && described.members["required"] == true {
		return errors.New("is missing")
	}
	for _, value := range values { // that there is one at most, it cannot say
		if err := c.checkText(c.member(described, "schema"), value); err != nil {
			return err
		}
	}
	return nil
}

// allowsBody holds a body to what is described. Where none is, it is not read.
func (c *Contract) allowsBody(request *http.Request, described object, sent []byte) error {
	sent = bytes.TrimPrefix(sent, []byte("\ufeff"))
	if len(sent) == 0 || described.members == nil {
		if described.members["required"] == true {
			return errors.New("the body is missing")
		}
		return nil
	}
	_, schema, err := c.schemaOf(c.member(described, "content"), request.Header)
	if err != nil {
		return err
	}
	return c.checkJSON(schema, sent)
}

// checkText holds a parameter or a header to a schema, of whose type it is if it can be.
func (c *Contract) checkText(schema object, text string) error {
	var value any = text
	if kind := schema.members["type"]; kind == "integer" || kind == "boolean" {
		if typed, err := jsonschema.UnmarshalJSON(strings.NewReader(text)); err == nil {
			value = typed
		}
	}
	return c.check(schema, value)
}

func (c *Contract) checkJSON(schema object, text []byte) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("%.200s: %w", text, err)
	}
	return c.check(schema, value)
}

func (c *Contract) check(schema object, value any) error {
	c.mu.Lock()
	compiled, err := c.schemas.Compile(name + "#" + (&url.URL{Path: schema.at}).EscapedPath())
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return compiled.Validate(value)
}

// object is an object of the document, and where it is, a JSON pointer. One without members is not there.
type object struct {
	at      string
	members map[string]any
}

// member is a member of an object, or the component that it refers to.
func (c *Contract) member(o object, name string) object {
	return c.at(o.at + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
}

// at is the object at a JSON pointer, or the component that it refers to.
func (c *Contract) at(pointer string) object {
	var found any = c.Document
	for step := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		switch here := found.(type) {
		case map[string]any:
			found = here[strings.NewReplacer("~1", "/", "~0", "~").Replace(step)]
		case []any:
			i, _ := strconv.Atoi(step)
			found = here[i]
		}
	}
	members, _ := found.(map[string]any)
	if ref, ok := members["$ref"].(string); ok {
		return c.at(strings.TrimPrefix(ref, "#"))
	}
	return object{pointer, members}
}

// operation is what the contract says of the request's method at its path, which is that template. HEAD is answered as GET, without a body.
func (c *Contract) operation(request *http.Request) (template string, operation object) {
	method := request.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	paths := c.at("/paths")
	for template := range paths.members {
		if matches(template, request.URL.Path) {
			return template, c.member(c.member(paths, template), strings.ToLower(method))
		}
	}
	return "", object{}
}

func matches(template, path string) bool {
	want, got := strings.Split(template, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		if want[i] != got[i] && (!strings.HasPrefix(want[i], "{") || got[i] == "") {
			return false
		}
	}
	return true
}
