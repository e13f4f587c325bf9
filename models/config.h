#pragma once
// What a language model is, as plain values. Parsed from the `model:` section of an experiment by
// models/config_parser. Every switch that changes a checkpoint's meaning is a key of its own.
// Sources: DeepSeekMoE (arXiv 2401.06066), DeepSeek-V2, DeepSeek-V3, NSA (arXiv 2502.11089), Engram
// / DSE (arXiv 2601.07372).
//
// Members are the keys, in YAML under their own names, and what they are set to is the default;
// keys at 0 that name no default must be given. Sizes of sequences count tokens. Attention other
// than `full` and hyper_connections above 1 can be planned and counted, but not trained yet.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace fulcrum::models {

// Causal attention over the whole sequence; native sparse attention; multi-head latent attention.
enum class AttentionKind : std::uint8_t { full, nsa, mla };

struct AttentionConfig {
  AttentionKind kind = AttentionKind::full;
  std::int64_t heads = 0;       // of queries
  std::int64_t kv_heads = 0;    // of keys and values, shared by groups of heads; 0: heads
  std::int64_t head_dim = 0;    // of queries and keys, even; 0: width / heads
  double rope_theta = 10000.0;  // base of the rotary positions' frequencies

  struct Mla {                    // DeepSeek-V2 section 2.1
    std::int64_t query_rank = 0;  // 0: no query compression
    std::int64_t kv_rank = 0;     // width that keys and values are compressed to
    std::int64_t rope_dim = 0;    // decoupled rotary part of each key and query
    std::int64_t value_dim = 0;   // 0: head_dim
  } mla;
  struct Nsa {  // NSA section 3; each branch has its own keys and values
    std::int64_t compression_block = 32, compression_stride = 16;  // of the compressed branch
    std::int64_t selection_block = 64, selected_blocks = 16;       // of the selected branch
    std::int64_t window = 512;                                     // of the sliding branch
    std::int64_t value_dim = 0;                                    // 0: head_dim
    std::int64_t compression_width = 0;  // hidden width of the compression MLPs; 0: head_dim
  } nsa;
};

enum class RouterScore : std::uint8_t { softmax, sigmoid };
enum class GroupScore : std::uint8_t { max, top2 };  // DeepSeek-V2 and -V3
// The tokens over which the balance losses count how often experts are chosen.
enum class BalanceScope : std::uint8_t { global_batch, micro_batch };

struct MoeConfig {
  // Routed experts N of a layer before segmentation; 0: every feed-forward is dense.
  std::int64_t experts = 0;
  std::int64_t top_k = 2;           // routed experts a token visits, before segmentation
  std::int64_t shared_experts = 0;  // that every token visits beside them, after segmentation
  std::int64_t expert_width = 0;    // hidden width of an expert before segmentation
  // m: m·experts routed experts of width expert_width / m, m·top_k active.
  std::int64_t segmentation = 1;
  std::int64_t leading_dense = 0;  // first layers that keep a dense feed-forward

  RouterScore score = RouterScore::softmax;  // of the router's logits
  bool renormalize = false;                  // selected weights sum to one
  double route_scale = 1.0;                  // multiplies the selected weights
  std::int64_t groups = 1;      // device- or node-limited routing: experts in this many groups …
  std::int64_t top_groups = 1;  // … of which a token may use this many
  GroupScore group_score = GroupScore::max;  // of its best expert, or the sum of its two best
  // Training only: drop the lowest affinities beyond factor · mean per group; 0: dropless.
  double capacity_factor = 0.0;
  double undropped_sequences = 0.0;  // share of sequences that it spares (DeepSeek-V2: 0.1)

  struct Balance {
    BalanceScope scope = BalanceScope::global_batch;
    double expert_loss = 0.0;         // α1
    double device_loss = 0.0;         // α2, over `groups`
    double communication_loss = 0.0;  // α3, over `groups`
    double sequence_loss = 0.0;       // α of DeepSeek-V3
    double bias_rate = 0.0;           // γ: balancing by a selection bias, without a loss
    double bias_fraction = 1.0;       // of the steps, after which the bias rests
    double z_loss = 0.0;              // mean of squared log-sum-exp of the router logits
  } balance;

  // After segmentation.
  std::int64_t routed() const { return experts * segmentation; }
  std::int64_t active() const { return top_k * segmentation; }
  std::int64_t width() const { return expert_width / segmentation; }
};

// Whether n-grams reach over the start of a document within a sequence, or pad_id stands there.
enum class BoundaryPolicy : std::uint8_t { none, document };

struct DseConfig {
  std::vector<std::int64_t> layers;           // 0-based blocks that own a memory
  std::vector<std::int64_t> orders = {2, 3};  // n of the n-grams, ascending and consecutive
  std::int64_t heads = 8;                     // hash heads of each order
  std::int64_t width = 0;  // d_mem: width of the whole memory vector; orders · heads divide it
  // Rows of one head before the prime search: the same for every order, or one value an order.
  // Empty: from budget.rho.
  std::vector<std::int64_t> rows_per_head;
  bool compress_tokenizer = true;  // hash normalised ids
  std::int64_t hash_seed = 0;      // of the multipliers; train.seed does not change them
  std::int64_t pad_id = -1;        // token before the start; -1: the tokenizer's pad
  BoundaryPolicy boundary = BoundaryPolicy::none;
  bool signed_sqrt = true;              // in the gate
  bool bias = false;                    // of the key and value projections
  std::int64_t convolution_kernel = 4;  // 0: no convolution
  bool convolution_zero_init = true;    // else normal with init_std
  double table_std = 0.02;              // of the rows at the start

  std::int64_t row_width() const {
    return width / (static_cast<std::int64_t>(orders.size()) * heads);
  }
};

// Split of the sparse parameters between experts and memory (DSE section 3.1). With rho set,
// moe.experts is the number of experts at rho = 1, and models/budget replaces it and
// dse.rows_per_head.
struct BudgetConfig {
  std::optional<double> rho;
};

struct ModelConfig {
  std::int64_t layers = 0;      // blocks of attention and feed-forward
  std::int64_t width = 0;       // of the residual stream
  std::int64_t ffn_width = 0;   // hidden width of dense feed-forwards; needed where there are any
  std::int64_t vocabulary = 0;  // 0: the tokenizer's, filled in from the prepared data
  bool tie_embeddings = false;  // the head is the token embedding
  double norm_eps = 1e-6;       // of every RMSNorm
  double init_std = 0.02;       // of matrices, experts and embeddings at the start
  bool scale_residual_init = true;     // output projections start with std / sqrt(2 · layers)
  std::int64_t hyper_connections = 1;  // residual branches (mHC); 1: the plain residual stream
  AttentionConfig attention;
  MoeConfig moe;
  std::optional<DseConfig> dse;  // absent or null: no memory
  BudgetConfig budget;
};

}  // namespace fulcrum::models
