#pragma once
// Names of models and gates on Hugging Face, where a folder is wanted.

#include <string>

namespace seer::io {

// NAME of ORG/NAME, of the characters that Hugging Face allows; "" of other paths.
std::string hub_name(const std::string& path);

// "`hf download ORG/NAME --local-dir NAME`", which gets it; "" of other paths.
std::string hub_download(const std::string& path);

}  // namespace seer::io
