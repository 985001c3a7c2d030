package imports

import (
	"regexp"
	"strings"
)

// secretWords are parts of names whose values must not be shown. Parts end at "_", "-" and changes
// of case.
var secretWords = map[string]bool{
	"secret": true, "secrets": true, "token": true, "tokens": true, "password": true, "passwd": true, "passphrase": true,
	"pass": true, "pwd": true, "key": true, "keys": true, "apikey": true, "credential": true, "credentials": true,
	"auth": true, "dsn": true, "salt": true, "pepper": true, "jwt": true, "cert": true, "private": true, "cookie": true,
	"bearer": true, "signature": true, "webhook": true, "pgpassword": true, "secretkey": true, "accesskey": true, "pin": true,
}

// secretValue matches values that contain a secret: an address with a password, blocks of PEM, and
// tokens of known services.
var secretValue = regexp.MustCompile(`[a-zA-Z][a-zA-Z0-9+.-]*://[^/@\s]*:[^/@\s]+@|-----BEGIN |^eyJ[A-Za-z0-9_-]+\.|^(gh[pousr]|github_pat|glpat|xox[a-z])[_-]|^sk[-_]|^AKIA`)

// secret reports whether a variable looks like a secret, by its name or its value. Too many are
// better than too few: a secret only moves to a file that only its owner can read.
func secret(name, value string) bool {
	switch {
	case name == "PWD" || name == "OLDPWD" || value == "":
		return false
	case secretValue.MatchString(value):
		return true
	}
	for _, word := range nameWords(name) {
		if secretWords[word] || strings.HasSuffix(word, "password") || strings.HasSuffix(word, "secret") || strings.HasSuffix(word, "token") {
			return true
		}
	}
	return false
}

// nameWords splits a name: API_KEY, apiKey and api-key are "api", "key".
func nameWords(name string) []string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && r >= 'A' && r <= 'Z' && name[i-1] >= 'a' && name[i-1] <= 'z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.FieldsFunc(strings.ToLower(b.String()), func(r rune) bool { return r == '_' || r == '-' || r == '.' })
}

// secretArgument returns the word of a command line that looks like a secret, without its value;
// empty if there is none. Everybody can read the command in the unit, as in the list of processes.
func secretArgument(argv []string) string {
	for i, word := range argv {
		name, value, joined := strings.Cut(word, "=")
		if !strings.HasPrefix(name, "-") {
			if secretValue.MatchString(word) {
				return "an argument"
			}
			continue
		}
		if !joined && i+1 < len(argv) && !strings.HasPrefix(argv[i+1], "-") {
			value = argv[i+1]
		}
		if !strings.ContainsAny(value, "/$") && secret(strings.TrimLeft(name, "-"), value) {
			return name
		}
	}
	return ""
}
