#pragma once
// The one place where errors reach the terminal.

namespace seer::cli {

// Within a catch block: writes the exception on one line of standard error, with control characters
// escaped, and returns the exit status: 2 for wrong usage, 128 and the signal's number for work that a
// signal stopped, else 1. With SEER_LOG=debug torch's call stack follows.
int report_error();

// Exceptions that leave a thread, too, end the program with such a line.
void report_errors_of_threads();

// Opens closed standard streams on /dev/null, so that no file of the program gets their numbers. What
// is written to a standard output that was closed still fails.
void open_standard_streams();
// Error: what was printed on standard output did not arrive.
void check_standard_output();

}  // namespace seer::cli
