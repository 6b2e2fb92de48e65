package main

import (
	"archive/zip"
	"bytes"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"chatkeep/handler/hosttest"

	"github.com/stretchr/testify/require"
)

// On Windows no file is executable, on FAT every one: the package is the same, and the host starts it.
func TestModesOfTheFileSystemDoNotMatter(t *testing.T) {
	staged := hosttest.Package(t)
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(staged)) })
	wanted, err := os.ReadFile(staged + ".zip")
	require.NoError(t, err)
	for name, mode := range map[string]fs.FileMode{"no file is executable": 0o444, "every file is": 0o777} {
		t.Run(name, func(t *testing.T) {
			var packed bytes.Buffer
			require.NoError(t, pack(withModes(t, staged, mode), &packed))
			require.True(t, bytes.Equal(wanted, packed.Bytes()), "other bytes")
		})
	}

	dist := unpacked(t, wanted)
	host := hosttest.Start(t, dist, "STORE=memory", "AUTH_AUDIENCE=api", "AUTH_TENANT_ID=11111111-2222-4333-8444-555555555555")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, host.URL+"/health", nil)
	require.NoError(t, err)
	answer, err := http.DefaultTransport.RoundTrip(request)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, http.StatusOK, answer.StatusCode)
}

func TestTheEnvironmentRedirectsNothing(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	for name, value := range map[string]string{
		"DIST": elsewhere, "VERSION": "evil", "GOOS": "plan9", "GOARCH": "386", "GOAMD64": "v3", "CGO_ENABLED": "1",
	} {
		t.Setenv(name, value)
	}
	t.Chdir("../..")
	dist := filepath.Join(t.TempDir(), "dist")
	require.NoError(t, run(dist, "test"))
	require.NoDirExists(t, elsewhere)
	other, err := os.ReadFile(dist + ".zip")
	require.NoError(t, err)

	for _, name := range []string{"DIST", "VERSION", "GOOS", "GOARCH", "GOAMD64", "CGO_ENABLED"} {
		require.NoError(t, os.Unsetenv(name)) // t.Setenv puts back what was
	}
	usual := hosttest.Package(t)
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(usual)) })
	wanted, err := os.ReadFile(usual + ".zip")
	require.NoError(t, err)
	require.True(t, bytes.Equal(wanted, other), "other bytes")
}

func TestOutsideTheProjectNothingIsTouched(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, os.Mkdir("dist", 0o700))
	require.ErrorContains(t, run("dist", "test"), "root of the project")
	require.DirExists(t, "dist")
}

// withModes is the folder as a file system that gives every file this mode.
func withModes(t *testing.T, folder string, mode fs.FileMode) fs.FS {
	files := make(fstest.MapFS)
	root := os.DirFS(folder)
	require.NoError(t, fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(root, name)
		files[name] = &fstest.MapFile{Data: data, Mode: mode}
		return err
	}))
	return files
}

// unpacked is the zip's content in a folder, with the zip's modes, as the platform mounts it.
func unpacked(t *testing.T, packed []byte) string {
	archive, err := zip.NewReader(bytes.NewReader(packed), int64(len(packed)))
	require.NoError(t, err)
	folder := t.TempDir()
	for _, file := range archive.File {
		data, err := fs.ReadFile(archive, file.Name)
		require.NoError(t, err)
		path := filepath.Join(folder, filepath.FromSlash(file.Name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, data, file.Mode()))
	}
	return folder
}
