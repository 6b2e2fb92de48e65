// Package contract holds what the API answers to openapi.yaml, for tests.
package contract

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	validatorerrors "github.com/pb33f/libopenapi-validator/errors"
	"github.com/pb33f/libopenapi-validator/schema_validation"
	"github.com/pb33f/libopenapi/datamodel/high/base"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// Contract is the API's contract. It is safe for concurrent use.
type Contract struct {
	Document map[string]any // as JSON has it
	validate validator.Validator
	schemas  schema_validation.SchemaValidator
	named    map[string]*base.Schema // of components
}

// Root is the project's folder.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

var load = sync.OnceValues(func() (*Contract, error) {
	document, err := read()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	parsed, err := libopenapi.NewDocument(text)
	if err != nil {
		return nil, err
	}
	validate, errs := validator.NewValidator(parsed, config.WithFormatAssertions())
	if len(errs) > 0 {
		return nil, errs[0]
	}
	model, err := parsed.BuildV3Model()
	if err != nil {
		return nil, err
	}
	c := &Contract{document, validate, schema_validation.NewSchemaValidator(config.WithFormatAssertions()), make(map[string]*base.Schema)}
	for name, schema := range model.Model.Components.Schemas.FromOldest() {
		c.named[name] = schema.Schema()
	}
	return c, nil
})

// read reads openapi.yaml.
func read() (document map[string]any, err error) {
	text, err := os.ReadFile(filepath.Join(Root(), "openapi.yaml"))
	if err == nil {
		err = yaml.Unmarshal(text, &document)
	}
	return document, err
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
	method := request.Method
	if method == http.MethodHead { // which answers as GET does, without a body
		method = http.MethodGet
	}
	var err error
	operation := c.operation(method, path)
	switch {
	case operation == nil && response.StatusCode < 400:
		err = errors.New("openapi.yaml does not have it")
	case operation == nil || response.StatusCode == http.StatusMethodNotAllowed: // which any path may answer
		err = c.checkOther(request, response, got)
	default:
		err = c.checkAnswer(request, operation, response, got)
	}
	if err == nil && response.StatusCode < 300 && request.Method != http.MethodHead {
		err = c.Allows(request, sent)
	}
	if err != nil {
		return fmt.Errorf("%s %s is answered by %d: %w\nasked: %.2000s\nanswered: %.2000s", request.Method, path, response.StatusCode, err, sent, got)
	}
	return nil
}

// checkAnswer holds an answer to what its operation says.
func (c *Contract) checkAnswer(request *http.Request, operation map[string]any, response *http.Response, got []byte) error {
	described := c.member(c.member(operation, "responses"), strconv.Itoa(response.StatusCode))
	if described == nil {
		return errors.New("openapi.yaml does not have this status")
	}
	if err := c.checkHeaders(described, response.Header); err != nil || request.Method == http.MethodHead {
		return err
	}
	content := c.member(described, "content")
	if (content == nil) != (len(got) == 0) {
		return errors.New("openapi.yaml has a body for this status, or the answer, and not both")
	}
	media, _, _ := strings.Cut(response.Header.Get("Content-Type"), ";")
	if part, ok := strings.CutPrefix(fmt.Sprint(c.member(c.member(c.member(content, media), "schema"), "contentSchema")["$ref"]), schemas); ok {
		return c.checkParts(part, media, got)
	}
	answer := *response
	answer.Body = io.NopCloser(bytes.NewReader(got))
	answer.Request = addressed(request)
	_, wrong := c.validate.ValidateHttpResponse(answer.Request, &answer)
	return problem(wrong)
}

// checkOther holds an error that any path may be answered with to the component of its status.
func (c *Contract) checkOther(request *http.Request, response *http.Response, got []byte) error {
	described := c.member(c.member(c.member(c.Document, "components"), "responses"), map[int]string{
		http.StatusBadRequest: "BadRequest", http.StatusForbidden: "Forbidden", http.StatusNotFound: "NotFound", http.StatusMethodNotAllowed: "MethodNotAllowed",
		http.StatusNotImplemented: "HostTooOld", http.StatusInternalServerError: "Internal",
	}[response.StatusCode])
	if described == nil {
		return errors.New("not every path may be answered so")
	}
	if err := c.checkHeaders(described, response.Header); err != nil || request.Method == http.MethodHead {
		return err
	}
	return c.Value("Problem", got)
}

// ofHTTP are headers that HTTP gives every answer, or our streams and CORS; the contract describes them in words, or not at all.
var ofHTTP = []string{
	"Cache-Control", "Connection", "Content-Length", "Content-Type", "Date", "Server", "Transfer-Encoding", "Vary", "X-Accel-Buffering", "X-Content-Type-Options",
}

// checkHeaders looks for headers that an answer has and its description has not. The values are the validator's to check.
func (c *Contract) checkHeaders(described map[string]any, header http.Header) error {
	declared := make(map[string]bool)
	for name := range c.member(described, "headers") {
		declared[http.CanonicalHeaderKey(name)] = true
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

// checkParts holds each event of a stream, or each line, to the schema of that name.
func (c *Contract) checkParts(name, media string, got []byte) error {
	if media == "text/event-stream" {
		for block := range strings.SplitSeq(strings.TrimSuffix(string(got), "\n\n"), "\n\n") {
			if err := c.Event(name, block); err != nil {
				return err
			}
		}
		return nil
	}
	for line := range bytes.Lines(got) {
		if err := c.Value(name, line); err != nil {
			return err
		}
	}
	return nil
}

// Event holds an event of a stream, as it is on the wire, to the schema of that name: one of an object with the event's fields. What has no
// data is none.
func (c *Contract) Event(name, block string) error {
	event := make(map[string]any)
	for line := range strings.SplitSeq(block, "\n") {
		field, value, _ := strings.Cut(line, ": ")
		event[field] = value
	}
	text, hasData := event["data"].(string)
	delete(event, "") // a comment
	if !hasData {
		return nil
	}
	var data any
	if err := json.Unmarshal([]byte(text), &data); err != nil {
		return fmt.Errorf("data %.200s: %w", text, err)
	}
	event["data"] = data
	_, wrong := c.schemas.ValidateSchemaObject(c.named[name], event)
	return problem(wrong)
}

// Value holds JSON to the schema of that name.
func (c *Contract) Value(name string, text []byte) error {
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return fmt.Errorf("%.200s: %w", text, err)
	}
	_, wrong := c.schemas.ValidateSchemaObject(c.named[name], value)
	return problem(wrong)
}

// Allows returns nil for a request that the contract allows.
func (c *Contract) Allows(request *http.Request, sent []byte) error {
	asked := addressed(request)
	sent = bytes.TrimPrefix(sent, []byte("\ufeff"))
	asked.Body = io.NopCloser(bytes.NewReader(sent))
	asked.ContentLength = int64(len(sent))
	if _, wrong := c.validate.ValidateHttpRequestSync(asked); len(wrong) > 0 {
		return fmt.Errorf("openapi.yaml does not allow the request: %w", problem(wrong))
	}
	return nil
}

// addressed is a request to the server that the contract names.
func addressed(request *http.Request) *http.Request {
	asked := request.Clone(context.Background())
	asked.URL.Scheme, asked.URL.Host, asked.Host = "https", "chat.contoso.com", "chat.contoso.com"
	return asked
}

const schemas = "#/components/schemas/"

// member is a member of an object, or the component that it refers to; nil if there is none. A schema that contentSchema refers to is not looked up.
func (c *Contract) member(object map[string]any, name string) map[string]any {
	member, _ := object[name].(map[string]any)
	ref, ok := member["$ref"].(string)
	if !ok || name == "contentSchema" {
		return member
	}
	found := c.Document
	for name := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
		found, _ = found[name].(map[string]any)
	}
	return found
}

// operation is what the contract says of a method at a path, or nil.
func (c *Contract) operation(method, path string) map[string]any {
	for template, item := range c.Document["paths"].(map[string]any) {
		if matches(template, path) {
			operation, _ := item.(map[string]any)[strings.ToLower(method)].(map[string]any)
			return operation
		}
	}
	return nil
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

// problem is what a validator finds, in one error; nil if that is nothing.
func problem(wrong []*validatorerrors.ValidationError) error {
	if len(wrong) == 0 {
		return nil
	}
	var all []string
	for _, w := range wrong {
		all = append(all, w.Message+": "+w.Reason)
		for _, s := range w.SchemaValidationErrors {
			all = append(all, "  "+s.FieldPath+" "+s.Reason)
		}
	}
	return errors.New(strings.Join(all, "\n"))
}
