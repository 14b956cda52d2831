pub mod kernel;
pub mod loader;
pub mod model;
