package program

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestName(t *testing.T) {
	for program, want := range map[string]string{"/opt/node22": "node", "python3.11": "python", "java-21": "java", "php8.2": "php", "php-fpm8.2": "php-fpm", "/a/server": "server"} {
		if got := Name(program); got != want {
			t.Errorf("Name(%q) = %q, want %q", program, got, want)
		}
	}
}

func TestScript(t *testing.T) {
	for text, want := range map[string]string{
		"#!/usr/bin/env node\nx": "/usr/bin/env node", "#! /bin/sh -e\n": "/bin/sh -e", "#!/bin/sh": "/bin/sh", "#!/bin/sh\r\n": "/bin/sh CRLF",
		"#!\n": "", "\x7fELF": "", "": "", " #!/bin/sh\n": "",
	} {
		file := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		words, crlf := Script(file)
		if crlf {
			words = append(words, "CRLF")
		}
		if got := strings.Join(words, " "); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if words, _ := Script(t.TempDir()); words != nil {
		t.Errorf("of a directory: %q", words)
	}
}

// What the process becomes, by argv with one blank between words; "_" stands for a blank in a word.
func TestReplaced(t *testing.T) {
	for command, want := range map[string]string{
		"node x.js":                      "node x.js",
		"/usr/bin/env -i A=1 node x.js":  "node x.js",
		"env A=1":                        "",
		"sh -c exec_node_x.js":           "node x.js",
		"/bin/sh -euc exec_env_A=1_node": "node",
		"env A=1 sh -c exec_node_x.js":   "node x.js",
		"sh -c node_x.js":                "sh -c node_x.js",
		"sh -c exec_node_x.js_|_cat":     "sh -c exec_node_x.js_|_cat",
		"sh -c cd_/srv_&&_exec_node_x":   "sh -c cd_/srv_&&_exec_node_x",
		"sh -c exec_-a_x_node":           "sh -c exec_-a_x_node",
		"sh x.sh":                        "sh x.sh",
		"sh -c":                          "sh -c",
		"":                               "",
	} {
		got := Replaced(argv(command))
		for i := range got {
			got[i] = strings.ReplaceAll(got[i], " ", "_")
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s becomes %q, want %q", command, got, want)
		}
	}
}

func argv(command string) []string {
	words := strings.Fields(command)
	for i := range words {
		words[i] = strings.ReplaceAll(words[i], "_", " ")
	}
	return words
}

func TestRuntimes(t *testing.T) {
	for _, test := range []struct {
		command, script string
		node, launches  bool
		compiles        string
	}{
		{"/usr/bin/node x.js", "", true, false, "node"},
		{"/usr/bin/nodejs --watch x.js", "", true, true, "nodejs"},
		{"/usr/bin/node --enable-source-maps=x node_modules/.bin/tsx.js", "", true, true, "node"},
		{"/srv/app", "/usr/bin/env node", true, false, "node"},
		{"/srv/app", "/usr/bin/env -S node --no-warnings", true, false, "node"},
		{"/srv/app", "/usr/bin/java -jar", false, false, "java"},
		{"/srv/app", "/bin/sh -e", false, false, ""},
		{"/srv/app", "", false, false, ""},
		{"/bin/sh -c exec_node_x.js", "", true, false, "node"},
		{"/bin/sh -c exec_npm_start", "", false, true, "npm"},
		{"/bin/sh -c sleep_1;node_x.js", "", false, false, "node"},
		{"/usr/bin/nice -n 5 node x", "", false, false, "node"},
		{"/usr/bin/python3.11 -m http", "", false, false, ""},
		{"/usr/bin/npm start", "/usr/bin/env node", true, true, "npm"},
		{"env A=1", "", false, false, ""},
	} {
		words, script := argv(test.command), strings.Fields(test.script)
		if got := RunsNode(words, script); got != test.node {
			t.Errorf("RunsNode(%q, %q) = %v", words, script, got)
		}
		if got := Launches(words); got != test.launches {
			t.Errorf("Launches(%q) = %v", words, got)
		}
		if got := Compiles(words, script); got != test.compiles {
			t.Errorf("Compiles(%q, %q) = %q, want %q", words, script, got, test.compiles)
		}
	}
}

func TestServer(t *testing.T) {
	for command, want := range map[string]string{
		"/usr/bin/gunicorn app:app": "gunicorn", "python3.11 -m uvicorn --fd 3": "uvicorn", "/usr/bin/python3 -m": "python3",
		"/usr/bin/python3 nginx x": "python3", "": "",
	} {
		if got := Server(argv(command)); got != want {
			t.Errorf("Server(%q) = %q, want %q", command, got, want)
		}
	}
}

func TestSearch(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"yes": 0o755, "no": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	got := []string{Search("yes", "/nowhere:"+dir, "/"), Search("no", dir, "/"), Search("yes", filepath.Base(dir), filepath.Dir(dir))}
	if want := []string{dir + "/yes", "", dir + "/yes"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}
