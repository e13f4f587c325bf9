#include "framework/telemetry/progress.h"

#include <memory>

#include "tests/catch.h"

using namespace fulcrum::telemetry;

namespace {

// A stream in memory and a clock that moves by hand.
struct Screen {
  char* data = nullptr;
  std::size_t size = 0;
  std::FILE* stream = open_memstream(&data, &size);
  double now = 100.0;

  ProgressOptions options(bool terminal) {
    return {
        .total_steps = 20, .first_step = 0, .log_every = 10, .terminal = terminal, .clock = [this] {
          return now;
        }};
  }
  std::string text() {
    std::fflush(stream);
    return std::string(data, size);
  }
  ~Screen() {
    std::fclose(stream);
    free(data);
  }
};

}  // namespace

TEST_CASE("on a pipe progress is plain lines at intervals", "[unit][telemetry]") {
  Screen screen;
  Progress progress(screen.stream, screen.options(false));
  for (int step = 1; step <= 20; ++step) {
    screen.now += 2.0;
    progress.update(step, 5.0 - 0.1 * step, 3000, step == 20 ? "done" : "");
  }
  CHECK(screen.text() ==
        "step 10/20  loss 4.0000  1.5k tokens/s  left 20s\n"
        "step 20/20  loss 3.0000  1.5k tokens/s  left 0s  done\n");
}

TEST_CASE("on a terminal one line is rewritten", "[unit][telemetry]") {
  Screen screen;
  Progress progress(screen.stream, screen.options(true));
  screen.now += 1.0;
  progress.update(1, 2.0, 100);
  screen.now += 0.01;
  progress.update(2, 2.0, 100);  // too soon to draw
  screen.now += 1.0;
  progress.update(3, 1.5, 100);
  progress.message("saved");
  progress.finish();
  const std::string first = "step 1/20  loss 2.0000  100 tokens/s  left 19s";
  const std::string third = "step 3/20  loss 1.5000  149 tokens/s  left 11s";
  CHECK(screen.text() == first + "\r\x1b[K" + third + "\r\x1b[K" + "saved\n" + third + "\n");
}

TEST_CASE("a resumed run's time left counts the steps it still has", "[unit][telemetry]") {
  Screen screen;
  ProgressOptions options = screen.options(false);
  options.first_step = 12;
  Progress progress(screen.stream, options);
  screen.now += 3.0;
  progress.update(13, 1.0, 30);
  CHECK(progress.tokens_per_second() == Approx(10.0));
  CHECK(progress.seconds_left() == Approx(21.0));
}

TEST_CASE("silent progress", "[unit][telemetry]") {
  Progress progress;
  progress.update(1, 1.0, 1);
  progress.message("x");
  progress.finish();
  CHECK(progress.tokens_per_second() == 0.0);
}

TEST_CASE("numbers and durations in words", "[unit][telemetry]") {
  CHECK(short_number(850) == "850");
  CHECK(short_number(999.7) == "1.0k");
  CHECK(short_number(15300) == "15.3k");
  CHECK(short_number(1.25e9) == "1.2G");
  CHECK(bytes_text(850) == "850 B");
  CHECK(bytes_text(12800) == "12.5 KiB");
  CHECK(bytes_text(5 << 28) == "1.25 GiB");
  CHECK(duration_text(41.6) == "42s");
  CHECK(duration_text(250) == "4m10s");
  CHECK(duration_text(3 * 3600 + 5 * 60) == "3h05m");
  CHECK(duration_text(2 * 86400 + 7 * 3600) == "2d07h");
}
