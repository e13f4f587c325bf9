#pragma once
// A sequence of device work, captured once and replayed as a whole: a step of a small model costs
// one launch instead of hundreds.

#include <functional>
#include <memory>

namespace fulcrum {

class CudaGraph {
 public:
  CudaGraph();
  ~CudaGraph();
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;

  // Runs `work` without executing it on the device and keeps what it launched on the compute
  // stream (and on streams that joined it by events). `work` must not wait for the device; tensors
  // that it makes come from memory of their own (GraphMemoryScope), and those it returns by
  // assignment hold the results of every replay. Handles and plans must exist already: run the same
  // work once before.
  void capture(const std::function<void()>& work);
  bool captured() const { return executable_ != nullptr; }
  void replay() const;

 private:
  struct Executable;
  std::unique_ptr<Executable> executable_;
};

}  // namespace fulcrum
