// `fulcrum prepare`: text in, a folder for `fulcrum train` out.

#include "data/prepare.h"

#include <pthread.h>
#include <signal.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "apps/commands.h"
#include "data/staging_folder.h"
#include "framework/core/error.h"
#include "framework/core/file.h"
#include "framework/telemetry/progress.h"

namespace fulcrum::apps {
namespace {

using data::PrepareProgress;

struct PrepareArguments {
  data::PrepareOptions options;
  std::string out;
  std::string tokenizer = "sentencepiece:bpe";
  std::string format = "auto";
  std::int64_t sample_mib = 16;
  bool force = false;
  bool json = false;
};

// Removes a folder when the process is asked to end (SIGINT, SIGTERM, SIGHUP), then lets the signal
// take its course. The signals are blocked in every thread that starts later and awaited by one of
// its own, since a handler could not touch files.
class RemoveOnSignal {
 public:
  explicit RemoveOnSignal(std::filesystem::path folder) {
    sigemptyset(&signals_);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals_, signal);
    pthread_sigmask(SIG_BLOCK, &signals_, &before_);
    watcher_ = std::jthread([this, folder = std::move(folder)](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        const timespec moment{0, 100'000'000};
        const int signal = sigtimedwait(&signals_, nullptr, &moment);
        if (signal <= 0) continue;
        std::error_code ignored;
        // Twice: another thread may add a file meanwhile.
        for (int i = 0; i < 2; ++i) std::filesystem::remove_all(folder, ignored);
        ::signal(signal, SIG_DFL);
        pthread_sigmask(SIG_UNBLOCK, &signals_, nullptr);
        raise(signal);
      }
    });
  }
  ~RemoveOnSignal() {
    watcher_ = {};  // stops and joins
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t signals_{}, before_{};
  std::jthread watcher_;
};

// On a terminal a line that is rewritten; otherwise a line every ten seconds.
class PrepareLine {
 public:
  PrepareLine() : terminal_(telemetry::is_terminal(stdout)) {}

  void update(const PrepareProgress& progress) {
    using Phase = PrepareProgress::Phase;
    const auto now = std::chrono::steady_clock::now();
    if (progress.phase != phase_ || started_ == Clock::time_point{}) {
      phase_ = progress.phase;
      started_ = shown_ = now;
      if (phase_ == Phase::train_tokenizer) {
        line(fmt::format("training the tokenizer on {} of text", size_text(progress.text_bytes)));
        close();
        return;
      }
    }
    const double interval = terminal_ ? 0.1 : 10.0;
    if (seconds(now - shown_) < interval) return;
    shown_ = now;
    const double elapsed = seconds(now - started_);
    const double rate = static_cast<double>(progress.text_bytes) / elapsed;
    std::string text = fmt::format("{}  {} of text  {:.1f} MB/s",
                                   phase_ == Phase::sample ? "sampling" : "encoding",
                                   size_text(progress.text_bytes), rate * 1e-6);
    if (progress.tokens > 0) {
      text +=
          fmt::format("  {} tokens", telemetry::short_number(static_cast<double>(progress.tokens)));
    }
    if (progress.total_bytes > 0 && progress.input_bytes > 0) {
      const double done =
          static_cast<double>(progress.input_bytes) / static_cast<double>(progress.total_bytes);
      text += fmt::format("  {:.0f}%  left {}", 100.0 * done,
                          telemetry::duration_text(elapsed * (1.0 - done) / done));
    }
    line(text);
  }

  void close() {
    if (open_) std::fputs("\n", stdout);
    open_ = false;
    std::fflush(stdout);
  }

 private:
  using Clock = std::chrono::steady_clock;
  static double seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

  void line(const std::string& text) {
    if (terminal_) {
      fmt::print("\r{}\x1b[K", text);
      open_ = true;
    } else {
      fmt::print("{}\n", text);
    }
    std::fflush(stdout);
  }

  const bool terminal_;
  bool open_ = false;
  PrepareProgress::Phase phase_ = PrepareProgress::Phase::sample;
  Clock::time_point started_{}, shown_{};
};

void set_tokenizer(const std::string& text, data::PrepareOptions& options) {
  using Kind = data::PrepareOptions::TokenizerKind;
  if (text == "bytes") {
    options.tokenizer = Kind::bytes;
  } else if (text == "sentencepiece" || text == "sentencepiece:bpe") {
    options.training.kind = data::SentencePieceKind::bpe;
  } else if (text == "sentencepiece:unigram") {
    options.training.kind = data::SentencePieceKind::unigram;
  } else if (text.ends_with(".model")) {
    options.tokenizer = Kind::file;
    options.model = text;
  } else {
    throw UserError(fmt::format(
        "--tokenizer '{}': must be sentencepiece:bpe, sentencepiece:unigram, bytes or a FILE.model",
        text));
  }
}

data::TextFormat format_of(const std::string& name) {
  if (name == "text") return data::TextFormat::text;
  if (name == "jsonl") return data::TextFormat::jsonl;
  return name == "man" ? data::TextFormat::man : data::TextFormat::automatic;
}

void show(const data::PrepareResult& result, const PrepareArguments& arguments, double seconds) {
  const data::Manifest& manifest = result.manifest;
  const auto number = [](std::int64_t n) {
    return telemetry::short_number(static_cast<double>(n));
  };
  for (const auto& [name, split] :
       {std::pair{"train", &manifest.train}, {"valid", &manifest.valid}}) {
    fmt::print("{}: {} documents, {} of text, {} tokens ({:.2f} bytes each)\n", name,
               split->documents, size_text(split->bytes), number(split->tokens),
               split->tokens > 0
                   ? static_cast<double>(split->bytes) / static_cast<double>(split->tokens)
                   : 0.0);
  }
  if (result.skipped > 0) fmt::print("left out: {} documents\n", result.skipped);
  if (manifest.valid.documents == 0) {
    fmt::print(
        "no document fell to validation: use more documents (--document-bytes), a larger "
        "--valid-fraction or --valid\n");
  }
  const data::PrepareOptions& options = arguments.options;
  const bool trained = options.tokenizer == data::PrepareOptions::TokenizerKind::train;
  if (trained && manifest.tokenizer.vocabulary < options.training.vocabulary) {
    fmt::print("the text is too little for --vocabulary {}: the tokenizer has {} entries\n",
               options.training.vocabulary, manifest.tokenizer.vocabulary);
  }
  fmt::print("{}: {}, vocabulary {}, {:.1f} s\n", arguments.out, manifest.tokenizer.kind,
             manifest.tokenizer.vocabulary, seconds);
}

void show_json(const data::PrepareResult& result, const PrepareArguments& arguments,
               double seconds) {
  const data::Manifest& manifest = result.manifest;
  nlohmann::json root = {{"out", arguments.out},
                         {"tokenizer", manifest.tokenizer.kind},
                         {"vocabulary", manifest.tokenizer.vocabulary},
                         {"skipped", result.skipped},
                         {"seconds", seconds}};
  for (const auto& [name, split] :
       {std::pair{"train", &manifest.train}, {"valid", &manifest.valid}}) {
    root[name] = {
        {"documents", split->documents}, {"tokens", split->tokens}, {"bytes", split->bytes}};
  }
  fmt::print("{}\n", root.dump(2));
}

void run(PrepareArguments& arguments) {
  data::PrepareOptions& options = arguments.options;
  set_tokenizer(arguments.tokenizer, options);
  options.source.format = format_of(arguments.format);
  options.sample_bytes = arguments.sample_mib << 20;
  const auto begin = std::chrono::steady_clock::now();
  data::StagingFolder folder(arguments.out, arguments.force);
  data::PrepareResult result;
  {
    const RemoveOnSignal guard(folder.path());
    PrepareLine line;
    result = data::prepare(options, folder.path(), [&](const PrepareProgress& progress) {
      if (!arguments.json) line.update(progress);
    });
    line.close();
  }
  folder.commit();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  (arguments.json ? show_json : show)(result, arguments, seconds);
}

}  // namespace

void add_prepare(CLI::App& app) {
  auto arguments = std::make_shared<PrepareArguments>();
  data::PrepareOptions& options = arguments->options;
  CLI::App* verb = app.add_subcommand(
      "prepare", "Turn text into token shards and a tokenizer, the folder that training reads");
  verb->add_option(
          "inputs", options.source.inputs,
          "files, folders, quoted patterns ('text/**/*.txt') or - for standard input; .gz, "
          ".zst and .dz are read as they are")
      ->required();
  verb->add_option("--out", arguments->out, "folder to make")->required();
  verb->add_option("--tokenizer", arguments->tokenizer,
                   "sentencepiece:bpe, sentencepiece:unigram, bytes or FILE.model")
      ->capture_default_str();
  verb->add_option("--vocabulary", options.training.vocabulary, "entries of a trained tokenizer")
      ->check(CLI::Range(std::int64_t{270}, std::int64_t{1} << 24))
      ->capture_default_str();
  verb->add_option(
          "--character-coverage", options.training.character_coverage,
          "share of the sample's characters with entries of their own; the rest become bytes")
      ->check(CLI::Range(0.9, 1.0))
      ->capture_default_str();
  verb->add_option("--tokenizer-sample", arguments->sample_mib,
                   "MiB of text, drawn evenly from the inputs, to train the tokenizer on")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 14))
      ->capture_default_str();
  verb->add_option("--format", arguments->format,
                   "auto (by file name), text, jsonl or man (manual pages, markup removed)")
      ->check(CLI::IsMember({"auto", "text", "jsonl", "man"}))
      ->capture_default_str();
  verb->add_option("--field", options.source.field, "key of the text in JSON lines")
      ->capture_default_str();
  verb->add_option("--glob", options.source.glob,
                   "which files of a folder; without it, those that look like text");
  verb->add_option("--document-bytes", options.source.document_bytes,
                   "cut longer texts at the next blank line; 1: every paragraph is a document")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_flag("--skip-invalid", options.source.skip_invalid,
                 "leave out and count documents that are not UTF-8 or not JSON");
  verb->add_option("--valid-fraction", options.valid_fraction,
                   "share of the documents, drawn by hash, for validation")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  verb->add_option("--valid,--valid-documents", options.valid_inputs,
                   "inputs that make up the validation split instead");
  verb->add_option("--seed", options.seed, "of the split and of the tokenizer's sample")
      ->capture_default_str();
  verb->add_option("--threads", options.threads, "encoders; 0: one a core")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb->add_option("--shard-tokens", options.shard_tokens, "start another shard after so many")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_flag("--force", arguments->force, "replace a folder prepared before");
  verb->add_flag("--json", arguments->json, "print the result as JSON");
  verb->footer(
      "Examples:\n"
      "  fulcrum prepare books/*.jsonl.zst --valid books/held-out.jsonl.zst --vocabulary 16384 "
      "--out data/books\n"
      "  fulcrum prepare /usr/share/man /usr/share/dictd/gcide.dict.dz --document-bytes 16384 "
      "--skip-invalid --out data/local");
  verb->callback([arguments] { run(*arguments); });
}

}  // namespace fulcrum::apps
