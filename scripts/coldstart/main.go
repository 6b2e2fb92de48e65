// Coldstart starts the handler 20 times and prints how long its first answer of GET / takes: coldstart HANDLER
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"time"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: coldstart HANDLER")
		os.Exit(2)
	}
	var took []time.Duration
	for range 20 {
		d, err := start(os.Args[1])
		if err != nil {
			fmt.Fprintln(os.Stderr, "coldstart:", err)
			os.Exit(1)
		}
		took = append(took, d)
	}
	slices.Sort(took)
	fmt.Printf("start to first answer of GET /: best %.1f ms, median %.1f ms\n", ms(took[0]), ms(took[len(took)/2]))
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func start(handler string) (time.Duration, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return 0, err
	}
	_, port, _ := net.SplitHostPort(addr)
	command := exec.Command(handler)
	command.Env = []string{
		"FUNCTIONS_CUSTOMHANDLER_PORT=" + port, "STORE=memory",
		"AUTH_ISSUER=x", "AUTH_AUDIENCE=x", "AUTH_JWKS_URL=/nowhere",
	}
	began := time.Now()
	if err := command.Start(); err != nil {
		return 0, err
	}
	defer func() { _ = command.Process.Kill(); _ = command.Wait() }()
	for time.Since(began) < 10*time.Second {
		response, err := http.Get("http://" + addr + "/")
		if err == nil {
			return time.Since(began), response.Body.Close()
		}
		time.Sleep(200 * time.Microsecond)
	}
	return 0, fmt.Errorf("no answer at %s", addr)
}
