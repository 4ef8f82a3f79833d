#include "core/train/cayley.h"

#include <algorithm>
#include <cmath>

#include "core/base/check.h"
#include "core/ir/rotations.h"
#include "eigen3/Eigen/Dense"

namespace nibble::train {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Map = Eigen::Map<Matrix>;
using ConstMap = Eigen::Map<const Matrix>;

// Keeps divisions finite, as in SpinQuant's optimizer.
constexpr double kEpsilon = 1e-8;

Matrix NormalizedRows(const ConstMap& r) {
  Matrix x = r;
  for (Eigen::Index i = 0; i < x.rows(); ++i) x.row(i) /= x.row(i).norm() + kEpsilon;
  return x;
}

}  // namespace

RotationParameter::RotationParameter(int64_t size, std::vector<double> value)
    : size_(size), value_(std::move(value)), momentum_(size * size, 0.0) {
  NIBBLE_CHECK(static_cast<int64_t>(value_.size()) == size * size);
}

void RotationParameter::Restore(std::vector<double> value, std::vector<double> momentum) {
  NIBBLE_CHECK(value.size() == value_.size() && momentum.size() == momentum_.size());
  value_ = std::move(value);
  momentum_ = std::move(momentum);
}

CayleyStep RotationParameter::Update(absl::Span<const double> gradient, double rate, const CayleyOptions& options) {
  NIBBLE_CHECK(gradient.size() == value_.size());
  const Matrix x = NormalizedRows(ConstMap(value_.data(), size_, size_));
  Map v(momentum_.data(), size_, size_);
  v = (options.momentum * v - ConstMap(gradient.data(), size_, size_).transpose()).eval();
  const Matrix m = v * x;
  const Matrix half = m - 0.5 * x.transpose() * (x * m);
  const Matrix w = half - half.transpose();
  CayleyStep step;
  step.skew_norm = w.cwiseAbs().colwise().sum().maxCoeff();
  step.alpha = std::min(1.0 / (step.skew_norm + kEpsilon), rate);
  const Matrix xt = x.transpose();
  Matrix y = xt + step.alpha * v;
  for (int i = 0; i < options.fixed_point_steps; ++i) y = (xt + step.alpha / 2 * (w * (xt + y))).eval();
  Map(value_.data(), size_, size_) = y.transpose();
  v = w * xt;
  return step;
}

void RotationParameter::Orthogonalize() { ir::Orthogonalize(size_, value_.data()); }

double RotationParameter::OrthogonalityError() const {
  const ConstMap r(value_.data(), size_, size_);
  return (r * r.transpose() - Matrix::Identity(size_, size_)).cwiseAbs().maxCoeff();
}

}  // namespace nibble::train
