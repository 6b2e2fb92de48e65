// Package contract holds what the API answers to openapi.yaml, for tests.
package contract

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	validatorerrors "github.com/pb33f/libopenapi-validator/errors"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// Contract is the API's contract. It is safe for concurrent use.
type Contract struct {
	Document map[string]any // as JSON has it
	validate validator.Validator
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
	validate, errs := validator.NewValidator(parsed)
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return &Contract{document, validate}, nil
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
// its lack of an X-Request-Id shows, is not its business, nor are preflights, HEAD, which answers as GET does without a body, and paths that
// are not the API's.
func (c *Contract) Check(t testing.TB, request *http.Request, sent []byte, response *http.Response, got []byte) {
	t.Helper()
	method, path := request.Method, request.URL.Path
	isAPI := strings.HasPrefix(path, "/api/") || path == "/health"
	if response.Header.Get("X-Request-Id") == "" || method == http.MethodHead || method == http.MethodOptions || !isAPI {
		return
	}
	asked := request.Clone(t.Context())
	asked.Method, asked.URL.Scheme, asked.URL.Host, asked.Host = method, "https", "chat.contoso.com", "chat.contoso.com"
	if c.operation(method, path) == nil {
		require.GreaterOrEqual(t, response.StatusCode, 400, "%s %s is answered, and not in openapi.yaml", method, path)
		c.checkProblem(t, got)
		return
	}
	if response.StatusCode == http.StatusMethodNotAllowed { // which every path can be answered with
		return
	}
	if media, _, _ := strings.Cut(response.Header.Get("Content-Type"), ";"); media == "application/x-ndjson" || media == "text/event-stream" {
		require.Contains(t, c.content(method, path, response.StatusCode), media)
		return
	}
	answer := *response
	answer.Body = io.NopCloser(bytes.NewReader(got))
	answer.Request = asked
	good, wrong := c.validate.ValidateHttpResponse(asked, &answer)
	require.True(t, good, "%s %s is answered by %d, not as openapi.yaml says: %s\n%.2000s", method, path, response.StatusCode, text(wrong), got)
	if response.StatusCode < 300 {
		sent = bytes.TrimPrefix(sent, []byte("\ufeff"))
		asked.Body = io.NopCloser(bytes.NewReader(sent))
		asked.ContentLength = int64(len(sent))
		good, wrong = c.validate.ValidateHttpRequestSync(asked)
		require.True(t, good, "%s %s is accepted, and openapi.yaml does not allow it: %s\n%.2000s", method, path, text(wrong), sent)
	}
}

// checkProblem holds an error of no operation to the schema of problems.
func (c *Contract) checkProblem(t testing.TB, got []byte) {
	t.Helper()
	var p struct{ Type, Title, Detail, Code, RequestID string }
	require.NoError(t, json.Unmarshal(got, &p), "%s", got)
	require.Equal(t, "urn:chatkeep:problem:"+p.Code, p.Type)
	require.NotEmpty(t, p.Detail)
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

// content is what an answer may be, by media type.
func (c *Contract) content(method, path string, status int) map[string]any {
	answers, _ := c.operation(method, path)["responses"].(map[string]any)
	answer, _ := answers[strconv.Itoa(status)].(map[string]any)
	content, _ := answer["content"].(map[string]any)
	return content
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

func text(wrong []*validatorerrors.ValidationError) string {
	var all []string
	for _, w := range wrong {
		all = append(all, w.Message+": "+w.Reason)
		for _, s := range w.SchemaValidationErrors {
			all = append(all, "  "+s.FieldPath+" "+s.Reason)
		}
	}
	return strings.Join(all, "\n")
}
