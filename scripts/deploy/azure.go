package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

func hasAzure() bool {
	_, err := exec.LookPath("az")
	return err == nil
}

// az asks the Azure CLI and returns its JSON.
func az(args ...string) ([]byte, error) {
	var said, complained bytes.Buffer
	asked := exec.Command("az", append(args, "--output", "json")...)
	asked.Stdout, asked.Stderr = &said, &complained
	if err := asked.Run(); err != nil {
		return nil, fmt.Errorf("az %s: %w: %s", strings.Join(args[:2], " "), err, strings.TrimSpace(complained.String()))
	}
	return said.Bytes(), nil
}

// command runs a program whose words everybody may see.
func command(name string, args ...string) error {
	_, err := watched(name, args...)
	return err
}

// watched is command, and returns what was written to stderr.
func watched(name string, args ...string) (string, error) {
	var complained bytes.Buffer
	run := exec.Command(name, args...)
	run.Stdout, run.Stderr = os.Stdout, io.MultiWriter(os.Stderr, &complained)
	if err := run.Run(); err != nil {
		return complained.String(), fmt.Errorf("%s %s: %w", name, strings.Join(args[:min(3, len(args))], " "), err)
	}
	return complained.String(), nil
}

// patiently runs a program again while what it says is passing, and tells so. Another failure ends it at once.
func patiently(why string, passing func(said string) bool, name string, args ...string) error {
	for n := 1; ; n++ {
		said, err := watched(name, args...)
		if err == nil || !passing(said) {
			return err
		}
		if n == storageTries {
			return fmt.Errorf("%w, %d times: %s", err, storageTries, why)
		}
		fmt.Printf("%s (%d of %d): again in %v\n", why, n, storageTries, pause())
		time.Sleep(pause())
	}
}

var errNoAzure = errors.New("the Azure CLI (az) is missing")
