// Handler stands in for the real one in the tests of hosttest: it tells what it received, or ends as it is told.
package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if code, err := strconv.Atoi(r.URL.Query().Get("exit")); err == nil {
			os.Exit(code)
		}
		if r.URL.Query().Has("stream") {
			_, _ = io.WriteString(w, "first\n")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			println("client left")
			return
		}
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Strict-Transport-Security", "max-age=1")
		w.Header().Set("X-Kept", "yes")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"method": r.Method, "uri": r.RequestURI, "host": r.Host, "header": r.Header, "body": string(body), "pid": os.Getpid(),
		})
	})
	time.Sleep(50 * time.Millisecond) // so that a request can come before the port is open
	panic(http.ListenAndServe("127.0.0.1:"+os.Getenv("FUNCTIONS_CUSTOMHANDLER_PORT"), nil))
}
