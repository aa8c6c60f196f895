#pragma once
// Unicode normalization forms and lower case, by utf8proc.

#include <string>

namespace seer::io {

enum class UnicodeForm { nfc, nfd, nfkc, nfkd };

// Valid UTF-8 in and out. Code points as in the `tokenizers` library: see is_inert().
void to_unicode_form(std::string& text, UnicodeForm form);
// Full lower case without context: one code point at a time.
void to_lower_case(std::string& text);
// Upper case of single code points; of those that become several, only the sharp s does.
void to_upper_case(std::string& text);

}  // namespace seer::io
