//go:build integration

package hosts

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// The example of docs/hosts.md: instances of two hosts share a counter and messages by Redis.
func (f *fleet) testShared(t *testing.T) {
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	c := f.control()
	c.MustExec(t, "systemd-run", "--unit=shared-redis", "--collect", "redis-server", "--bind", frontAddr(2), "--protected-mode", "no", "--save", "")
	c.MustExec(t, "sh", "-c", "until redis-cli -h "+frontAddr(2)+" ping; do :; done")
	for _, s := range f.web[:2] {
		s.MustCopyIn(t, filepath.Join(root, "examples/redis/server.py"), "/srv/server.py", 0o644)
		s.MustExec(t, "unitgen", "shared", "-n", "2", "--listen", "3100", "--program-port=3000", "--env=REDIS="+frontAddr(2)+":6379", "--now",
			"--", "python3", "/srv/server.py")
	}
	get := func(host int, path string) string {
		return strings.TrimSpace(c.MustExec(t, "curl", "-sS", "http://"+webAddr(host)+":3100"+path))
	}
	for n := 1; n <= 8; n++ {
		if got, want := get(1+n%2, "/"), fmt.Sprintf("visits=%d", n); got != want {
			t.Errorf("visit %d of all hosts: %s", n, got)
		}
	}
	// Two instances on each of two hosts, each of which takes messages a moment after its start.
	var told string
	for until := time.Now().Add(apps.Limit); told != "told 4" && time.Now().Before(until); {
		told = get(1, "/tell?hello")
	}
	if told != "told 4" {
		t.Fatalf("a message is %s, want told 4", told)
	}
	for host := 1; host <= 2; host++ {
		for range 2 { // both instances in turn
			if got := f.until(func() string { return get(host, "/told") }, "hello"); got != "hello" {
				t.Errorf("an instance of host %d was told %q", host, got)
			}
		}
		f.web[host-1].MustExec(t, "unitgen", "remove", "shared")
	}
	c.MustExec(t, "systemctl", "stop", "shared-redis.service")
}

// until repeats f until it returns want or the time is up, and returns its last result.
func (f *fleet) until(get func() string, want string) (got string) {
	f.t.Helper()
	for until := time.Now().Add(apps.Limit); got != want && time.Now().Before(until); {
		got = get()
	}
	return got
}

// statement is the line of docs/hosts.md that begins with word.
func statement(t *testing.T, word string) string {
	t.Helper()
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs/hosts.md"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "    "+word) {
			return strings.TrimSpace(line)
		}
	}
	t.Fatalf("docs/hosts.md has no line %s", word)
	return ""
}

// What docs/hosts.md says of PostgreSQL: a queue, a lock and messages, each with one session inside
// another one.
func (f *fleet) testPostgres(t *testing.T) {
	c, at := f.control(), frontAddr(2)
	c.MustExec(t, "sh", "-c", `set -e
bin=$(echo /usr/lib/postgresql/*/bin)
install -d -o postgres /srv/pg
setpriv --reuid=postgres --regid=postgres --init-groups "$bin/initdb" --no-sync --auth=trust -D /srv/pg
echo "host all all `+client+"/24"+` trust" >> /srv/pg/pg_hba.conf
systemd-run --unit=shared-postgres --collect --uid=postgres "$bin/postgres" -D /srv/pg -k /srv/pg -h "$1"
until psql -h "$1" -U postgres -c ""; do :; done`, "sh", at)
	psql := "psql --no-psqlrc --no-align --tuples-only --quiet --set=ON_ERROR_STOP=1 --username=postgres --host=" + at
	session := func(host int, lines ...string) string {
		s := f.web[host-1]
		s.MustWriteFile(t, "/srv/session.sql", strings.Join(lines, "\n")+"\n", 0o644)
		return strings.TrimSpace(s.MustExec(t, "sh", "-c", psql+" --file=/srv/session.sql"))
	}
	inside := func(line string) string { return `\! ` + psql + ` --command="` + line + `"` }
	session(1, "CREATE TABLE jobs (id serial PRIMARY KEY, work text);", "INSERT INTO jobs (work) VALUES ('one'), ('two');")
	take, lock := statement(t, "DELETE FROM jobs"), statement(t, "SELECT pg_advisory_lock")
	if got := session(1, "BEGIN;", take, inside(take), "COMMIT;"); got != "one\ntwo" {
		t.Errorf("two that take jobs at a time get %q", got)
	}
	try := strings.Replace(lock, "pg_advisory", "pg_try_advisory", 1)
	if got := session(1, lock, inside(try)); got != "f" {
		t.Errorf("whether another one gets the lock: %q", got)
	}
	if got := session(2, try); got != "t" {
		t.Errorf("whether the next one gets the lock: %q", got)
	}
	if got := session(2, statement(t, "LISTEN"), inside(statement(t, "NOTIFY")), "SELECT 'end';"); !strings.Contains(got, `"hello"`) {
		t.Errorf("who listens is told %q", got)
	}
	c.MustExec(t, "systemctl", "stop", "shared-postgres.service")
}

// What docs/hosts.md says of NATS: messages to all, and messages that wait for who takes them.
func (f *fleet) testNATS(t *testing.T) {
	c, at := f.control(), frontAddr(2)
	c.MustExec(t, "systemd-run", "--unit=shared-nats", "--collect", "nats-server", "--addr="+at, "--jetstream", "--store_dir=/srv/nats")
	dial := func() (write func(string), await func(string)) {
		ctx, cancel := context.WithTimeout(t.Context(), apps.Limit)
		defer cancel()
		conn, err := f.lan.DialContext(ctx, "tcp", at+":4222")
		for err != nil && ctx.Err() == nil {
			conn, err = f.lan.DialContext(ctx, "tcp", at+":4222")
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(apps.Limit))
		r := bufio.NewReader(conn)
		await = func(want string) {
			t.Helper()
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					t.Fatalf("await %q: %v", want, err)
				}
				if strings.Contains(line, want) {
					return
				}
			}
		}
		write = func(text string) {
			t.Helper()
			if _, err := io.WriteString(conn, text); err != nil {
				t.Fatal(err)
			}
		}
		write("CONNECT {\"verbose\":false}\r\nPING\r\n")
		await("PONG")
		return write, await
	}
	publish := func(subject, answer, text string) string {
		return fmt.Sprintf("PUB %s %s %d\r\n%s\r\n", subject, answer, len(text), text)
	}
	first, firstHears := dial()
	second, secondHears := dial()
	first("SUB news 1\r\nSUB mine 2\r\nPING\r\n")
	second("SUB news 1\r\nPING\r\n")
	firstHears("PONG")
	secondHears("PONG")
	third, _ := dial()
	third(publish("news", "", "hello"))
	firstHears("hello")
	secondHears("hello")

	first(publish("$JS.API.STREAM.CREATE.jobs", "mine", `{"name":"jobs","subjects":["jobs"]}`))
	firstHears(`"created"`)
	first(publish("jobs", "mine", "work")) // nobody has subscribed to it
	firstHears(`"seq":1`)
	first(publish("$JS.API.STREAM.MSG.GET.jobs", "mine", `{"seq":1}`))
	firstHears(base64.StdEncoding.EncodeToString([]byte("work")))
	c.MustExec(t, "systemctl", "stop", "shared-nats.service")
}
