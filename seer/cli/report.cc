// seer report: one page of everything in folders of results.

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "seer/cli/args.h"
#include "seer/cli/measured.h"
#include "seer/cli/verbs.h"
#include "seer/report/page.h"

namespace seer::cli {

int report(int argc, char** argv, int first) {
  std::vector<std::filesystem::path> paths{"results"};
  std::string out = "report.html";
  Args args(
      "report",
      "One HTML page, which needs no network, of everything in folders of results: quality and "
      "speed "
      "against density, training curves, and a viewer of attention (`seer run` and `seer eval "
      "attention` keep its maps).");
  args.positional(
      "paths", paths, {},
      "folders, searched with all below them, and JSON files, as `seer run`, `eval` and "
      "`bench` write them");
  args.output_file("out", out, "the page");
  if (!args.parse(argc, argv, first)) return 0;
  for (const auto& path : paths) {
    if (!std::filesystem::exists(path)) {
      throw UsageError(path.string() +
                       " is not there: name a folder of results, such as one in runs/");
    }
  }
  show_page(report::write_page(paths, out), out);
  return 0;
}

}  // namespace seer::cli
