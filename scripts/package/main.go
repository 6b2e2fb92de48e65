// Package stages dist/, the folder that Azure Functions runs, and packs dist.zip: host.json, the static Linux binary handler, and a folder
// for each function. It runs on every system and takes nothing from the environment but Go's own flags: equal sources, packed by the same
// Go, give equal bytes. From the root of the project: go run ./scripts/package [-to FOLDER] [-version VERSION]
//
// The zip is FOLDER.zip. It has no times, its names are sorted, and its modes do not come from the file system: the host does not make
// the handler executable on every plan, and the file systems of Windows know no such mode.
package main

import (
	"archive/zip"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const handler = "handler" // host.json's defaultExecutablePath

func main() {
	to := flag.String("to", "dist", "the folder to stage, which is made anew")
	version := flag.String("version", "", "what the handler calls itself; git's description without it")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*to, *version); err != nil {
		fmt.Fprintln(os.Stderr, "package:", err)
		os.Exit(1)
	}
}

func run(dist, version string) error {
	if version == "" {
		version = described()
	}
	if err := stage(dist, version); err != nil {
		return err
	}
	file, err := os.Create(dist + ".zip")
	if err != nil {
		return err
	}
	if err := errors.Join(pack(os.DirFS(dist), file), file.Close()); err != nil {
		return err
	}
	info, err := os.Stat(dist + ".zip")
	if err != nil {
		return err
	}
	fmt.Printf("Packaged version %s in %s and %s.zip (%.1f MB)\n", version, dist, dist, float64(info.Size())/1e6)
	return nil
}

func described() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "dev"
	}
	return strings.TrimSpace(string(out))
}

// stage makes the folder anew.
func stage(dist, version string) error {
	if _, err := os.Stat("host.json"); err != nil {
		return fmt.Errorf("run it in the root of the project: %w", err)
	}
	if err := errors.Join(os.RemoveAll(dist), os.RemoveAll(dist+".zip")); err != nil {
		return err
	}
	if err := os.CopyFS(dist, os.DirFS("functions")); err != nil {
		return err
	}
	host, err := os.ReadFile("host.json")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dist, "host.json"), host, 0o600); err != nil {
		return err
	}
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version="+version,
		"-o", filepath.Join(dist, handler), "./handler")
	build.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "CGO_ENABLED=0", "GOEXPERIMENT=", "GOFIPS140=off")
	build.Stdout, build.Stderr = os.Stdout, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("go build: %w", err)
	}
	return nil
}

// pack writes the folder's files as a zip.
func pack(folder fs.FS, to io.Writer) error {
	archive := zip.NewWriter(to)
	err := fs.WalkDir(folder, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		header := &zip.FileHeader{Name: name, Method: zip.Deflate}
		header.SetMode(0o644)
		if name == handler {
			header.SetMode(0o755)
		}
		into, err := archive.CreateHeader(header)
		if err != nil {
			return err
		}
		from, err := folder.Open(name)
		if err != nil {
			return err
		}
		defer func() { _ = from.Close() }()
		_, err = io.Copy(into, from)
		return err
	})
	return errors.Join(err, archive.Close())
}
