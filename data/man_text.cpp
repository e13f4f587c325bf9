#include "data/man_text.h"

#include <algorithm>
#include <unordered_set>
#include <utility>
#include <vector>

#include "data/man_escapes.h"

namespace fulcrum::data {
namespace {

using Words = std::unordered_set<std::string_view>;

// Requests and macros without text of their own; whatever follows on their line is dropped.
const Words kSilent = {
    "TH",  "Dd", "Dt", "Os",  "Bl",   "El",    "Bd",  "Ed",  "Bk",  "Ek",    "RS", "RE",
    "PD",  "DT", "AT", "UC",  "IX",   "Vb",    "Ve",  "EX",  "EE",  "UE",    "ME", "YS",
    "ad",  "af", "bd", "cc",  "ce",   "ch",    "cp",  "cs",  "cu",  "di",    "da", "ds",
    "as",  "dt", "ec", "em",  "eo",   "ev",    "fc",  "fi",  "fl",  "fp",    "ft", "fzoom",
    "hc",  "hw", "hy", "in",  "it",   "lc",    "lg",  "ll",  "ls",  "lt",    "mc", "mk",
    "mso", "na", "ne", "nf",  "nh",   "nm",    "nn",  "nop", "nr",  "ns",    "nx", "os",
    "pc",  "pl", "pm", "pn",  "po",   "ps",    "rd",  "rm",  "rn",  "rr",    "rs", "rt",
    "so",  "ss", "sv", "sy",  "ta",   "tc",    "ti",  "tl",  "tm",  "tr",    "uf", "ul",
    "vs",  "wh", "do", "als", "warn", "color", "fam", "pso", "Bx",  "PSPIC", "EQ", "EN",
    "T&",  "TE", "rj", "Sm",  "Rs",   "Re",    "Fo",  "Fc",  "lsm", "blm",   "c2", "ig"};
const Words kParagraph = {"PP", "P", "LP", "Pp", "HP", "TP", "TQ", "sp", "bp", "IP", "It", "SY"};
const Words kAlternating = {"BR", "BI", "IR", "RB", "RI", "IB"};
// mdoc macros that may appear among the arguments of others.
const Words kCallable = {"Ad", "Ar", "Cm", "Dv", "Em", "Er",  "Ev", "Fa", "Fl", "Fn", "Ft",
                         "Ic", "Li", "Nm", "No", "Ns", "Oc",  "Oo", "Op", "Pa", "Pf", "Dq",
                         "Sq", "Pq", "Qq", "Aq", "Bq", "Brq", "Ql", "St", "Sx", "Sy", "Tn",
                         "Va", "Vt", "Xr", "Ao", "Ac", "Xo",  "Xc", "Lk", "Mt", "Ap"};

class Stripper {
 public:
  std::string run(std::string_view page) {
    while (!page.empty()) {
      const std::size_t end = std::min(page.find('\n'), page.size());
      std::string_view line = page.substr(0, end);
      page.remove_prefix(std::min(end + 1, page.size()));
      if (line.ends_with('\r')) line.remove_suffix(1);
      this->line(line);
    }
    const std::size_t last = out_.find_last_not_of(" \n");
    out_.resize(last == std::string::npos ? 0 : last + 1);
    if (!out_.empty()) out_ += '\n';
    return std::move(out_);
  }

 private:
  static int braces(std::string_view line) {
    int depth = 0;
    for (std::size_t i = 0; i + 1 < line.size(); ++i) {
      if (line[i] != '\\') continue;
      depth += (line[i + 1] == '{') - (line[i + 1] == '}');
      ++i;
    }
    return depth;
  }

  void line(std::string_view line) {
    if (!skip_until_.empty()) {
      if (line.starts_with('.') && line.substr(1) == skip_until_) skip_until_.clear();
      return;
    }
    if (depth_ > 0) {
      depth_ = std::max(depth_ + braces(line), 0);
      return;
    }
    if (table_format_) {  // the layout of a table ends with a period
      table_format_ = !line.ends_with('.') && !line.starts_with(".TE");
      return;
    }
    if (line.starts_with('.') || line.starts_with('\'')) {
      macro(line.substr(1));
    } else if (line.find_first_not_of(" \t") == std::string_view::npos) {
      paragraph();
    } else if (line != "T{" && line != "T}") {
      const std::string text = unescape(line);
      if (!text.empty()) out_ += text + '\n';
    }
  }

  void macro(std::string_view line) {
    const std::size_t begin = line.find_first_not_of(" \t");
    if (begin == std::string_view::npos) return;
    line.remove_prefix(begin);
    const std::size_t end = std::min(line.find_first_of(" \t"), line.size());
    const std::string_view name = line.substr(0, end);
    const std::string_view rest = line.substr(end);
    if (name.starts_with("\\\"")) return;
    if (name == "if" || name == "ie" || name == "el" || name == "while") {
      depth_ = std::max(braces(line), 0);
    } else if (name == "de" || name == "am" || name == "ig" || name == "de1") {
      const auto words = arguments(rest);
      const std::size_t at = name == "ig" ? 0 : 1;
      skip_until_ = words.size() > at ? words[at] : ".";
    } else if (name == "TS") {
      table_format_ = true;
    } else if (name == "EQ") {
      skip_until_ = "EN";
    } else if (name == "SH" || name == "SS" || name == "Sh" || name == "Ss") {
      paragraph();
      emit(join(arguments(rest), " "));
    } else if (kParagraph.contains(name)) {
      paragraph();
      if (name == "IP") {
        const auto words = arguments(rest);
        if (!words.empty()) emit(words[0]);
      } else if (name == "It" || name == "SY") {
        emit(mdoc(arguments(rest)));
      }
    } else if (kAlternating.contains(name)) {
      emit(join(arguments(rest), ""));
    } else if (name == "Nd") {
      emit("– " + join(arguments(rest), " "));
    } else if (name == "UR" || name == "MT") {
      emit(join(arguments(rest), " "));
    } else if (name == "br" || kSilent.contains(name)) {
      return;
    } else {
      auto words = arguments(rest);
      words.insert(words.begin(), std::string(name));
      emit(kCallable.contains(name) ? mdoc(words) : join({words.begin() + 1, words.end()}, " "));
    }
  }

  // Arguments of an mdoc line: callable macros among them print their marks.
  std::string mdoc(const std::vector<std::string>& words) {
    std::string text, closing;
    bool glue = true;
    const auto add = [&](const std::string& word) {
      const bool punctuation =
          word.size() == 1 && std::string_view(".,:;)]?!").find(word[0]) != std::string_view::npos;
      if (!glue && !punctuation) text += ' ';
      text += word;
      glue = word == "(" || word == "[";
    };
    for (std::size_t i = 0; i < words.size(); ++i) {
      const std::string& word = words[i];
      if (word == "Fl") {
        add("-");
        glue = true;
      } else if (word == "Ns" || word == "Ap") {
        if (word == "Ap") text += '\'';
        glue = true;
      } else if (word == "Op" || word == "Bq" || word == "Oo") {
        add("[");
        if (word != "Oo") closing.insert(closing.begin(), ']');
      } else if (word == "Oc") {
        text += ']';
      } else if (word == "Pq" || word == "Dq" || word == "Qq" || word == "Sq" || word == "Ql") {
        const bool round = word == "Pq", single = word == "Sq" || word == "Ql";
        add(round ? "(" : single ? "'" : "\"");
        closing.insert(closing.begin(), round ? ')' : single ? '\'' : '"');
        glue = true;
      } else if (word == "Nm") {
        const bool named = i + 1 < words.size() && !kCallable.contains(words[i + 1]) &&
                           words[i + 1].find_first_not_of(".,:;") != std::string::npos;
        if (named && name_.empty()) name_ = words[i + 1];
        if (!named && !name_.empty()) add(name_);
      } else if (word == "Xr" && i + 1 < words.size()) {
        std::string reference = words[++i];
        if (i + 1 < words.size() && words[i + 1].find_first_of("123456789") == 0) {
          reference += "(" + words[++i] + ")";
        }
        add(reference);
      } else if (!kCallable.contains(word)) {
        add(word);
      }
    }
    return text + closing;
  }

  static std::string join(const std::vector<std::string>& words, std::string_view between) {
    std::string text;
    for (std::size_t i = 0; i < words.size(); ++i) {
      if (i > 0) text += between;
      text += words[i];
    }
    return text;
  }

  void emit(const std::string& text) {
    if (!text.empty()) out_ += text + '\n';
  }
  void paragraph() {
    if (!out_.empty() && !out_.ends_with("\n\n")) out_ += '\n';
  }

  std::string out_;
  std::string name_;        // of the page's subject, for .Nm without arguments
  std::string skip_until_;  // request that ends a definition
  int depth_ = 0;           // of a skipped conditional block
  bool table_format_ = false;
};

}  // namespace

std::string strip_troff(std::string_view page) { return Stripper().run(page); }

}  // namespace fulcrum::data
