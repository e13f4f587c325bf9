#pragma once
// The report of a fit: one self-contained HTML file (inline SVG and style, no script, nothing
// loaded), readable in light and in dark. For each curve: every run, mean and spread of each level,
// both forms, the interval shaded, the optimum marked or the edge named, a table, what is missing,
// and the settings.

#include <string>
#include <utility>
#include <vector>

#include "apps/sweep/fit/output.h"

namespace fulcrum::apps {

using Settings = std::vector<std::pair<std::string, std::string>>;

std::string html_report(const FitReport& report, const std::string& title,
                        const Settings& settings);

// The figure of one curve, an <svg> element styled by classes.
std::string figure_svg(const CurveFit& fit, const std::string& x_name);

std::string html_escaped(const std::string& text);

}  // namespace fulcrum::apps
