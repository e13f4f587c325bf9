#pragma once
// The machine below every collective: a list of stages, each of which posts messages; when all
// messages of a stage have arrived, the next stage runs. Whoever polls it (a wait, a test, the
// progress thread) moves it on.

#include <mpi.h>

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace fulcrum::parallel {

class DeviceGroup;

// A private duplicate of an MPI communicator, so that nobody else's messages meet ours.
struct Group {
  MPI_Comm comm = MPI_COMM_NULL;  // null: one rank, no MPI
  int rank = 0;
  int size = 1;
  std::string name;
  std::vector<int> world_ranks;
  int next_tag = 0;
  DeviceGroup* device = nullptr;  // from the first collective on device memory on

  Group() = default;
  Group(MPI_Comm own, std::string name);  // takes ownership; collective
  ~Group();
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  // Every rank takes tags in the same order, so both ends of a message agree on one.
  int take_tag();
};

// Longer messages are cut into pieces of this many bytes: MPI counts with int. Tests make it
// smaller.
std::int64_t& max_message_bytes();

class Operation {
 public:
  using Stage = std::function<void(Operation&)>;

  // Nothing happens before the first advance(). The stages own the memory that they use.
  Operation(std::shared_ptr<Group> group, const char* name, std::int64_t bytes, int tag,
            std::vector<Stage> stages);

  // The stages begin only when `previous` is done. Before the first advance().
  void after(std::shared_ptr<Operation> previous) { previous_ = std::move(previous); }

  // For stages. Peers are ranks of the group, never this one; empty messages are not sent. Both
  // ends cut a message alike.
  void send(int peer, const void* data, std::int64_t bytes);
  void receive(int peer, void* data, std::int64_t bytes);
  // A request of a collective of the MPI library.
  void add(MPI_Request request);
  const Group& group() const { return *group_; }

  // Moves on as far as possible without waiting; true when finished. Safe from several threads.
  // Rethrows what a stage threw.
  bool advance();
  // Until finished, under the watchdog.
  void wait();
  bool finished();

 private:
  bool step();
  std::string missing();

  std::shared_ptr<Group> group_;
  const char* name_;
  std::int64_t bytes_;
  int tag_;
  std::vector<Stage> stages_;
  std::shared_ptr<Operation> previous_;
  std::size_t next_stage_ = 0;
  std::vector<MPI_Request> requests_;
  std::vector<int> sources_;  // world rank that each request waits for; -1: several
  std::exception_ptr error_;
  bool finished_ = false;
  std::mutex mutex_;
};

}  // namespace fulcrum::parallel
