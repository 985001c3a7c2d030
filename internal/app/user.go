package app

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
)

// maxUserName is the longest name of a user that systemd makes (systemd.io/USER_NAMES).
const maxUserName = 31

// InstanceUser is User= of the instances. A user that was not asked for is a dynamic one, and its
// name is written out: with DynamicUser=yes alone PID 1 takes the name of the unit
// (user_from_unit_name() in src/core/unit.c), and with the name the account that bears it, so that
// an app "root" would run as root. It is empty for a user's own units, and "%i" in it stands for
// the number of the instance.
func (a App) InstanceUser() string {
	switch {
	case a.UserUnits:
		return ""
	case a.User != "":
		return a.User
	case a.UserPerInstance:
		return dynamicUser(a.Name, "%i")
	}
	return dynamicUser(a.Name, "")
}

// DynamicUsers are the names that PID 1 makes users of for those instances. None of them may be an
// account's: the app would run as it. It is empty where the user was chosen.
func (a App) DynamicUsers(instances []int) []string {
	switch {
	case a.UserUnits || a.User != "":
		return nil
	case !a.UserPerInstance:
		return []string{dynamicUser(a.Name, "")}
	}
	var users []string
	for _, i := range instances {
		users = append(users, dynamicUser(a.Name, strconv.Itoa(i)))
	}
	return users
}

// dynamicUser names a user after an app and, if there is one, an instance: ug-web, ug3-web. systemd
// takes letters, digits, "_" and "-" for such names (valid_user_group_name() in
// src/basic/user-util.c). A name that has others or is too long is cut, and a hash follows:
// ug_shop-example-co_951623a26f8b. No two apps share a user: the instance stands before the first
// "-" or "_", and that byte tells whole names from cut ones.
func dynamicUser(name Name, instance string) string {
	room := maxUserName - len("ug") - len("-")
	if instance != "" {
		room -= len(strconv.Itoa(MaxInstances))
	}
	plain := func(r rune) bool { return r != '.' && r != ':' && nameRune(r) }
	word := string(name)
	if len(word) <= room && !strings.ContainsFunc(word, func(r rune) bool { return !plain(r) }) {
		return "ug" + instance + "-" + word
	}
	sum := sha256.Sum256([]byte(word))
	hash := hex.EncodeToString(sum[:6])
	word = strings.Map(func(r rune) rune {
		if plain(r) {
			return r
		}
		return '-'
	}, word)
	return "ug" + instance + "_" + word[:min(len(word), room-len(hash)-1)] + "_" + hash
}

// SharedDirectories are the settings that give the instances a directory in common: PID 1 gives it
// to the user of the one that started last.
func (a App) SharedDirectories() []string {
	var keys []string
	for _, p := range a.Properties {
		if sharedDirectory(p) && !slices.Contains(keys, p.Key) {
			keys = append(keys, p.Key)
		}
	}
	return keys
}

func sharedDirectory(p Property) bool {
	switch p.Key {
	case "StateDirectory", "CacheDirectory", "LogsDirectory", "RuntimeDirectory":
	default:
		return false
	}
	return slices.ContainsFunc(strings.Fields(p.Value), func(dir string) bool { return !strings.Contains(dir, "%i") })
}

// systemUnits reports whether the units are the system's, whose processes can be any user's.
func (a App) systemUnits() bool { return !a.UserUnits }

func (a App) checkUser(found *inputErrors) {
	if !userName(a.User) {
		found.addf("", "--user= must be the name or number of a user, got %q", a.User)
	}
}

func (a App) checkUserPerInstance(found *inputErrors) {
	if a.User != "" {
		found.addf("", "--user-per-instance does not go with --user=%s, which is one user", a.User)
	}
	for _, p := range a.Properties {
		if sharedDirectory(p) {
			found.addf("-p "+p.Key+"="+string(a.Name)+"/%i", "--user-per-instance does not go with --property=%s=%s: only the instance that started last could use it", p.Key, p.Value)
		}
	}
}

// userName is narrower than systemd's "relaxed" names (systemd.io/USER_NAMES), so that nothing in
// it is expanded.
func userName(s string) bool {
	if s == "" || len(s) > maxUserName || s[0] == '-' || s[0] == '.' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r == ':' || !nameRune(r) })
}
