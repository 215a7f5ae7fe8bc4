//! Places by number, in a vector that is as long as the highest needs.

/// The place of that number, which is made with all before it if there are fewer.
pub(crate) fn place_at<T: Default>(places: &mut Vec<T>, number: usize) -> Option<&mut T> {
    if number >= places.len() {
        places.resize_with(number.saturating_add(1), T::default);
    }
    places.get_mut(number)
}
