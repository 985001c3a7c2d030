// Package view is what people see of apps: list, status, logs and the progress of operations, and
// their tables, sizes, times and states, in the words of systemctl.
//
// It asks PID 1 and the kernel nothing and changes nothing: package survey looks, package live
// acts.
package view
