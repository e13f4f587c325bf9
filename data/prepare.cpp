#include "data/prepare.h"

#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <optional>
#include <thread>

#include "data/byte_stream.h"
#include "data/digest_file.h"
#include "data/encode_pipeline.h"
#include "data/token_shard.h"
#include "data/tokenizer.h"
#include "framework/core/error.h"
#include "framework/core/file.h"

namespace fulcrum::data {
namespace {

constexpr const char* kTokenizerFile = "tokenizer.model";
constexpr const char* kSpoolFile = "standard-input.zst";

// The shards of one split.
class SplitWriter {
 public:
  SplitWriter(std::filesystem::path folder, std::string name, const Tokenizer& tokenizer,
              std::int64_t shard_tokens)
      : folder_(std::move(folder)),
        name_(std::move(name)),
        tokenizer_(tokenizer),
        shard_tokens_(shard_tokens) {}

  void add(std::string_view text, std::span<const std::int32_t> ids) {
    if (writer_ && writer_->tokens() >= shard_tokens_) close();
    if (!writer_) {
      record_.shards.push_back(
          {fmt::format("{}-{:05}", name_, record_.shards.size()), 0, 0, 0, {}, {}});
      writer_.emplace(folder_ / record_.shards.back().name, tokenizer_.vocabulary());
    }
    document_.assign(ids.begin(), ids.end());
    document_.push_back(tokenizer_.end_of_document());
    writer_->add_document(document_);
    record_.shards.back().bytes += static_cast<std::int64_t>(text.size());
  }

  SplitRecord finish() {
    close();
    return std::move(record_);
  }

 private:
  void close() {
    if (!writer_) return;
    ShardRecord& shard = record_.shards.back();
    shard.documents = writer_->documents();
    shard.tokens = writer_->tokens();
    const auto digests = writer_->finish();
    shard.bin = digests.bin;
    shard.idx = digests.idx;
    record_.documents += shard.documents;
    record_.tokens += shard.tokens;
    record_.bytes += shard.bytes;
    writer_.reset();
  }

  std::filesystem::path folder_;
  std::string name_;
  const Tokenizer& tokenizer_;
  std::int64_t shard_tokens_;
  SplitRecord record_;
  std::optional<TokenShardWriter> writer_;
  std::vector<std::int32_t> document_;
};

// Keeps standard input in a file, so that it can be read twice.
void spool_standard_input(const std::filesystem::path& path) {
  ByteStream in("-", nullptr);
  OutputFile out(path, OutputFile::Mode::truncate);
  const std::unique_ptr<ZSTD_CCtx, std::size_t (*)(ZSTD_CCtx*)> context(ZSTD_createCCtx(),
                                                                        &ZSTD_freeCCtx);
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_compressionLevel, 1);
  std::string text(std::size_t{1} << 17, '\0'), packed(ZSTD_CStreamOutSize(), '\0');
  for (bool end = false; !end;) {
    const std::size_t n = in.read(text.data(), text.size());
    end = n == 0;
    ZSTD_inBuffer input{text.data(), n, 0};
    for (std::size_t left = 1; end ? left != 0 : input.pos < input.size;) {
      ZSTD_outBuffer output{packed.data(), packed.size(), 0};
      left =
          ZSTD_compressStream2(context.get(), &output, &input, end ? ZSTD_e_end : ZSTD_e_continue);
      FULCRUM_CHECK(!ZSTD_isError(left), "zstd: {}", ZSTD_getErrorName(left));
      out.write(packed.data(), static_cast<std::int64_t>(output.pos));
    }
  }
  out.close();
}

std::unique_ptr<Tokenizer> make_tokenizer(
    const PrepareOptions& options, const TextSourceOptions& source_options,
    const std::filesystem::path& folder,
    const std::function<void(const PrepareProgress&)>& report) {
  using Kind = PrepareOptions::TokenizerKind;
  if (options.tokenizer == Kind::bytes) return make_byte_tokenizer();
  const std::filesystem::path file = folder / kTokenizerFile;
  if (options.tokenizer == Kind::file) {
    load_sentencepiece(options.model);  // before copying: the error names the user's file
    write_file(file, read_text(options.model));
    return load_sentencepiece(file);
  }
  LineSample sample(options.sample_bytes, options.seed);
  PrepareProgress progress;
  TextSource source(source_options);
  progress.total_bytes = source.total_bytes();
  for (std::string document; source.next(document);) {
    sample.add(document);
    ++progress.documents;
    progress.text_bytes += static_cast<std::int64_t>(document.size());
    progress.input_bytes = source.consumed_bytes();
    report(progress);
  }
  progress.phase = PrepareProgress::Phase::train_tokenizer;
  progress.text_bytes = sample.bytes();
  report(progress);
  write_file(file, train_sentencepiece(sample.lines(), options.training));
  return load_sentencepiece(file);
}

TokenizerRecord record_of(const Tokenizer& tokenizer, const std::filesystem::path& folder) {
  TokenizerRecord record{std::string(tokenizer.kind()),
                         "",
                         {},
                         tokenizer.vocabulary(),
                         tokenizer.end_of_document(),
                         tokenizer.pad()};
  if (const auto file = folder / kTokenizerFile; std::filesystem::exists(file)) {
    record.file = kTokenizerFile;
    record.digest = {static_cast<std::int64_t>(std::filesystem::file_size(file)),
                     checksum_file(file)};
  }
  return record;
}

std::map<std::string, std::string> settings_of(const PrepareOptions& options) {
  return {{"seed", std::to_string(options.seed)},
          {"valid_fraction",
           options.valid_inputs.empty() ? fmt::format("{}", options.valid_fraction) : "0"},
          {"field", options.source.field},
          {"document_bytes", std::to_string(options.source.document_bytes)},
          {"sample_bytes", std::to_string(options.sample_bytes)}};
}

}  // namespace

PrepareResult prepare(const PrepareOptions& options, const std::filesystem::path& folder,
                      const std::function<void(const PrepareProgress&)>& report) {
  PrepareResult result;
  TextSourceOptions source_options = options.source;
  const std::filesystem::path spool = folder / kSpoolFile;
  const auto standard_input =
      std::find(source_options.inputs.begin(), source_options.inputs.end(), "-");
  if (standard_input != source_options.inputs.end() &&
      options.tokenizer == PrepareOptions::TokenizerKind::train) {
    spool_standard_input(spool);
    *standard_input = spool.string();
  }
  const auto tokenizer = make_tokenizer(options, source_options, folder, report);
  SplitWriter train(folder, "train", *tokenizer, options.shard_tokens);
  SplitWriter valid(folder, "valid", *tokenizer, options.shard_tokens);

  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const EncodePipeline pipeline{*tokenizer, options.threads > 0 ? options.threads : cores};
  PrepareProgress progress;
  progress.phase = PrepareProgress::Phase::encode;
  const auto encode = [&](const TextSourceOptions& inputs, double valid_share) {
    TextSource source(inputs);
    progress.input_bytes = 0;
    progress.total_bytes = source.total_bytes();
    pipeline.run([&](std::string& document) { return source.next(document); },
                 [&](std::string_view text, std::span<const std::int32_t> ids) {
                   const double draw =
                       static_cast<double>(checksum(text.data(), text.size(), options.seed) >> 11) *
                       0x1p-53;
                   (draw < valid_share ? valid : train).add(text, ids);
                   ++progress.documents;
                   progress.tokens += static_cast<std::int64_t>(ids.size()) + 1;
                   progress.text_bytes += static_cast<std::int64_t>(text.size());
                   progress.input_bytes = source.consumed_bytes();
                   report(progress);
                 });
    result.skipped += source.skipped();
  };
  encode(source_options, options.valid_inputs.empty() ? options.valid_fraction : 0.0);
  if (!options.valid_inputs.empty()) {
    TextSourceOptions valid_options = options.source;
    valid_options.inputs = options.valid_inputs;
    encode(valid_options, 1.0);
  }
  std::filesystem::remove(spool);

  Manifest& manifest = result.manifest;
  manifest.train = train.finish();
  manifest.valid = valid.finish();
  if (manifest.train.documents == 0) {
    throw UserError(fmt::format("the inputs hold no documents for training ({} left out)",
                                result.skipped + manifest.valid.documents));
  }
  manifest.tokenizer = record_of(*tokenizer, folder);
  manifest.sources = options.source.inputs;
  manifest.sources.insert(manifest.sources.end(), options.valid_inputs.begin(),
                          options.valid_inputs.end());
  manifest.settings = settings_of(options);
  write_manifest(folder, manifest);
  return result;
}

}  // namespace fulcrum::data
