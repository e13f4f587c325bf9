#pragma once
// A hang must not last: what waits for other ranks is watched, and when it takes longer than the
// limit, the job is taken down with a message that says who waited, for what, and for how long.

#include <cstdint>
#include <functional>
#include <list>
#include <string>

namespace fulcrum::parallel {

// Limit for every wait of this process; 0 switches the watchdog off. 600 s until set
// (parallel.hang_timeout_s).
void set_hang_timeout(double seconds);
double hang_timeout();

// Watches the enclosing scope, which waits for other ranks:
//
//   Watch watch("all_reduce of data", bytes);
//
// `detail` may add to the report (who is missing); it is called from the watchdog's thread while
// the wait goes on.
class Watch {
 public:
  struct Entry;
  Watch(std::string operation, std::int64_t bytes, std::function<std::string()> detail = {});
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

 private:
  std::list<Entry>::iterator entry_;
};

// Looks after what no thread of this process waits for, such as collectives on a device: from now
// on until it is destroyed, the watchdog's thread calls `check` about once a second, with the limit
// in force, and takes the job down with the message that it returns. Empty: all is well.
class Patrol {
 public:
  using Check = std::function<std::string(double limit)>;
  explicit Patrol(Check check);
  ~Patrol();
  Patrol(const Patrol&) = delete;
  Patrol& operator=(const Patrol&) = delete;

 private:
  std::list<Check>::iterator check_;
};

// What is said of an operation that has taken longer than the limit.
std::string overdue_message(const std::string& operation, std::int64_t bytes, double seconds,
                            const std::string& detail, double limit);

}  // namespace fulcrum::parallel
